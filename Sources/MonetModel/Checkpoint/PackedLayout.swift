import MonetCompute

/// The layout of expert weights.
public enum ExpertLayout: Sendable {
    /// As published: down-projections `[out, E · units]`, an expert's weights in columns.
    case checkpoint
    /// As inference reads them: an expert's rows are contiguous, with `moe.down…` in place of `moe.v…`.
    case packed
}

extension MonetConfiguration {
    /// The tensors of a layout: the checkpoint's, with packed tensors in place of their sources, and for
    /// quantized weights with the routers' int8 rows.
    func shapes(_ layout: ExpertLayout) -> [TensorShape] {
        let names = feedForward.packedTensors
        guard layout == .packed, !names.isEmpty else { return shapes() }
        return shapes().flatMap { shape -> [TensorShape] in
            if shape.role == .router, quantization != nil {
                let names = RouterScreenNames(weight: shape.name)
                return [
                    shape, TensorShape(name: names.rows, shape: shape.shape, role: .routerScreen),
                    TensorShape(name: names.bounds, shape: [shape.shape[0]], role: .routerScreenBounds),
                ]
            }
            guard let (packed, prefix, isFirst) = names.place(of: shape.name) else { return [shape] }
            return isFirst
                ? [
                    TensorShape(
                        name: prefix + packed.name,
                        shape: [packed.sources.count * shape.shape[1], shape.shape[0]], role: .expert)
                ] : []
        }
    }
}

extension [PackedTensor] {
    /// The packed tensor that contains a tensor of the checkpoint, with the layer's prefix.
    fileprivate func place(of name: String) -> (packed: PackedTensor, prefix: String, isFirst: Bool)? {
        for packed in self {
            for (index, source) in packed.sources.enumerated() where name.hasSuffix("." + source) {
                return (packed, String(name.dropLast(source.count)), index == 0)
            }
        }
        return nil
    }
}

/// The names of a router's screen in a quantized checkpoint: its int8 weights and their error bounds.
struct RouterScreenNames {
    let rows: String
    let bounds: String

    init(weight: String) {
        let prefix = weight.hasSuffix(".weight") ? String(weight.dropLast(".weight".count)) : weight
        rows = prefix + ".screen"
        bounds = prefix + ".screen_bounds"
    }
}

extension ParameterSet {
    /// The same parameters, with the routers' weights also in int8.
    func withRouterScreens() -> ParameterSet {
        ParameterSet(
            all.flatMap { parameter in
                guard parameter.role == .router else { return [parameter] }
                let names = RouterScreenNames(weight: parameter.name)
                let screen = RoundedRouter(of: parameter.tensor)
                return [
                    parameter, Parameter(name: names.rows, tensor: screen.rows, role: .routerScreen),
                    Parameter(name: names.bounds, tensor: screen.bounds, role: .routerScreenBounds),
                ]
            })
    }

    /// The same weights, with the packed tensors of their family in place of their sources.
    func packed(_ configuration: MonetConfiguration) throws -> ParameterSet {
        let names = configuration.feedForward.packedTensors
        return ParameterSet(
            try all.compactMap { parameter in
                guard let (packed, prefix, isFirst) = names.place(of: parameter.name) else {
                    return parameter
                }
                guard isFirst else { return nil }
                let matrices = try packed.sources.map { try self(prefix + $0).tensor }
                return Parameter(
                    name: prefix + packed.name,
                    tensor: .expertRows(of: matrices, experts: packed.experts), role: .expert)
            })
    }

    /// Whether experts are stored in packed tensors.
    func isPacked(_ configuration: MonetConfiguration) -> Bool {
        let names = Set(configuration.feedForward.packedTensors.map(\.name))
        return all.contains { parameter in names.contains { parameter.name.hasSuffix("." + $0) } }
    }
}

extension MonetLanguageModel {
    /// The same model with its expert weights in the order in which inference reads them, instead of the
    /// checkpoint's. It cannot be trained or written.
    public func packed() throws -> MonetLanguageModel {
        guard adapters == nil else { return try merged().packed() }
        return try MonetLanguageModel(
            configuration: configuration,
            parameters: parameters.isPacked(configuration) ? parameters : parameters.packed(configuration),
            ownMask: ownMask, tunedFrom: tunedFrom)
    }
}
