import MonetCompute

extension MonetLanguageModel {
    /// Checks values that the model computed.
    ///
    /// - Throws: what `nonFinite` returns if a value is NaN or infinite.
    func requireFinite(
        _ values: Tensor, of input: ForwardInput? = nil, on backend: any Backend, _ what: String
    ) throws {
        // One pass that every device has; it is not finite if any value is not, or if squares overflow.
        guard try !backend.sumOfSquares(values).isFinite, values.floats().contains(where: { !$0.isFinite })
        else { return }
        throw nonFinite(what, of: input, on: backend)
    }

    /// Why values are not finite: the tensor that holds such a value, or else the first layer that computes one.
    private func nonFinite(_ what: String, of input: ForwardInput?, on backend: any Backend) -> ModelError {
        // Once is enough: the next bad input must not read all weights again.
        let isKnown = weightsAreFinite.withLock { $0 }
        if !isKnown {
            if let error = parameters.firstNonFinite() { return error }
            weightsAreFinite.withLock { $0 = true }
        }
        guard var input, !input.sequences.contains(where: { $0.cache != nil }) else {
            return .notFinite(what: what, place: nil)
        }
        let layers = 0..<configuration.layerCount
        input.hooks.observed.formUnion(layers.map { HookPoint(.residPost, layer: $0) })
        let output = try? unchecked(input, on: backend)
        for layer in layers {
            guard let value = output?.observations[HookPoint(.residPost, layer: layer)]?.value,
                value.floats().contains(where: { !$0.isFinite })
            else { continue }
            return .notFinite(what: "the output of layer \(layer)", place: nil)
        }
        return .notFinite(what: what, place: nil)
    }
}

extension ParameterSet {
    /// An error that names the first tensor with a NaN or infinite element; nil if all are finite.
    ///
    /// - `files`: the file of each tensor; "the model" for those of none.
    func firstNonFinite(files: (String) -> String = { _ in "the model" }) -> ModelError? {
        for parameter in all {
            if let error = parameter.tensor.nonFinite(named: parameter.name, in: files(parameter.name)) {
                return error
            }
        }
        return nil
    }

    /// Bytes of all tensors.
    var byteCount: Int { all.reduce(0) { $0 + $1.tensor.byteCount } }
}

extension Tensor {
    /// An error that names the first element that is NaN or infinite; nil if all are finite, or if the tensor is
    /// not in host memory.
    func nonFinite(named name: String, in file: String) -> ModelError? {
        guard storage is HostStorage, let index = firstNonFinite() else { return nil }
        let place = shape.indices.reversed().reduce(into: (rest: index, path: [Int]())) { place, axis in
            place.path.insert(place.rest % max(1, shape[axis]), at: 0)
            place.rest /= max(1, shape[axis])
        }.path
        return .notFinite(
            what: "\(file): tensor \"\(name)\"",
            place: dtype.isQuantized ? "a scale of row \(place.first ?? 0)" : "element \(place)")
    }
}
