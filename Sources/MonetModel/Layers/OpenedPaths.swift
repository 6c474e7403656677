import MonetCompute

/// Paths that a linearized layer holds and that can be opened to first order: through attention patterns, and through routing
/// probabilities.
extension MonetLanguageModel {
    /// Gradient of v · a, for what attention adds to the stream, through the attention patterns alone: values keep theirs.
    ///
    /// - `output`: a pass over one sequence without a cache that observed the layer's `HookPoint.Kind.residPre`.
    /// - `gradient`: v, `[tokens, d]`.
    /// - Returns: the gradient with respect to the normalized stream that attention reads, `[tokens, d]`.
    public func patternGradient(
        _ layer: Int, of output: ForwardOutput, for gradient: Tensor, on backend: any Backend
    ) throws -> Tensor {
        let (pass, layer, tokens) = (openedPass(output, on: backend), layers[layer], gradient.rowCount)
        let stream = Variable(try output.observed(.residPre, layer.index))
        let normed = try layer.inputNorm(stream, pass)
        let read = Variable(normed.value, requiresGradient: true)
        let positions = SequencePositions(
            counts: [tokens], starts: [0], caches: [nil], rotary: try rotations(length: tokens, on: backend))
        let added = try layer.attention(
            read, values: Variable(normed.value), positions: positions, layer: layer.index, pass)
        return try readGradient(of: read, for: [(added, gradient)], pass)
    }

    /// Gradient of Σ v · y, for what the feed-forward blocks of a group add to the stream, through the routing probabilities
    /// alone: experts keep their inputs.
    ///
    /// - `output`: a pass over one sequence without a cache that observed `HookPoint.Kind.mlpIn` of the group's layers.
    /// - `gradients`: v for each layer of the group, `[tokens, d]`.
    /// - Returns: the gradient with respect to the router's input, `[tokens, d]`; nil for a group without a router.
    public func routingGradient(
        group: Int, of output: ForwardOutput, for gradients: [Tensor], on backend: any Backend
    ) throws -> Tensor? {
        let own = layers[units.layersOfGroup[group]].compactMap { layer in
            (layer.feedForward as? ExpertLayer).map { (layer.index, $0) }
        }
        guard let owner = own.first, let router = owner.1.router, own.count == gradients.count else {
            return nil
        }
        let pass = openedPass(output, on: backend)
        let read = Variable(try output.observed(.mlpIn, owner.0), requiresGradient: true)
        let routing = try router(read, pass)
        let added = try zip(own, gradients).map { layer, gradient in
            (try layer.1.experts(Variable(output.observed(.mlpIn, layer.0)), routing, pass), gradient)
        }
        return try readGradient(of: read, for: added, pass)
    }

    /// A pass with gradients over the sequence of another, under the same edits.
    private func openedPass(_ output: ForwardOutput, on backend: any Backend) -> ForwardPass {
        var input = ForwardInput(output.pass.input.sequences)
        for index in input.sequences.indices { input.sequences[index].cache = nil }
        return ForwardPass(
            input, own: ownMask, tape: GradientTape(backend: backend, isRecording: true))
    }

    private func readGradient(
        of read: Variable, for added: [(value: Variable, gradient: Tensor)], _ pass: ForwardPass
    ) throws -> Tensor {
        let backend = pass.tape.backend
        for (value, gradient) in added { try value.add(backend.tensor(gradient), on: backend) }
        try pass.tape.backward()
        return try read.gradientForAdding(on: backend)
    }
}
