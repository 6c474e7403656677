import MonetCompute

/// In which order expert weights lie.
public enum ExpertLayout: Sendable {
    /// As published: down-projections `[out, E · units]`, an expert's weights in columns.
    case checkpoint
    /// As inference reads them: an expert's rows together, `moe.down…` in place of `moe.v…`.
    case packed
}

/// A down-projection of the packed layout and the checkpoint's matrices that it is made of.
struct PackedName {
    let packed: String
    let sources: [String]

    /// Those of one kind of layer, without the layer's prefix.
    static func all(_ kind: MonetConfiguration.FeedForward) -> [PackedName] {
        switch kind {
        case .horizontal: [PackedName(packed: "moe.down.weight", sources: ["moe.v.weight"])]
        case .vertical:
            [
                PackedName(packed: "moe.down1.weight", sources: ["moe.v11.weight", "moe.v12.weight"]),
                PackedName(packed: "moe.down2.weight", sources: ["moe.v21.weight", "moe.v22.weight"]),
            ]
        case .dense: []
        }
    }
}

extension MonetConfiguration {
    /// The tensors of a layout: the checkpoint's with packed down-projections in place of its own.
    func shapes(_ layout: ExpertLayout) -> [TensorShape] {
        guard layout == .packed, feedForward != .dense else { return shapes() }
        let names = PackedName.all(feedForward)
        var result: [TensorShape] = []
        for shape in shapes() {
            guard let name = names.first(where: { $0.sources.contains { shape.name.hasSuffix("." + $0) } })
            else {
                result.append(shape)
                continue
            }
            let first = name.sources[0]
            guard shape.name.hasSuffix("." + first) else { continue }
            result.append(
                TensorShape(
                    name: shape.name.dropLast(first.count) + name.packed,
                    shape: [name.sources.count * shape.shape[1], shape.shape[0]], role: .expert))
        }
        return result
    }
}

extension ParameterSet {
    /// The layout of the expert weights.
    var layout: ExpertLayout { all.contains { $0.name.contains(".moe.down") } ? .packed : .checkpoint }

    /// The same weights with the experts' down-projections packed; mapped pages that are no longer
    /// needed are given back, so that one copy stays in memory.
    func packed(_ configuration: MonetConfiguration) throws -> ParameterSet {
        guard configuration.feedForward != .dense, layout == .checkpoint else { return self }
        let names = PackedName.all(configuration.feedForward)
        let experts = configuration.expertsPerSide
        var result: [Parameter] = []
        for parameter in all {
            guard
                let name = names.first(where: { $0.sources.contains { parameter.name.hasSuffix("." + $0) } })
            else {
                result.append(parameter)
                continue
            }
            let first = name.sources[0]
            guard parameter.name.hasSuffix("." + first) else { continue }
            let prefix = parameter.name.dropLast(first.count)
            let matrices = try name.sources.map { try self(prefix + $0).tensor }
            result.append(
                Parameter(
                    name: prefix + name.packed, tensor: PackedExperts.rows(of: matrices, experts: experts),
                    role: .expert))
            for matrix in matrices { matrix.storage.releasePages() }
        }
        return ParameterSet(result)
    }
}

extension MonetLanguageModel {
    /// The same model with its expert weights in the order that inference reads them. It cannot be
    /// trained, and is written in the packed layout only.
    public func packedForInference() throws -> MonetLanguageModel {
        try MonetLanguageModel(configuration: configuration, parameters: parameters.packed(configuration))
    }
}
