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
    /// The tensors of a layout: the checkpoint's with packed down-projections in place of its own, and
    /// for quantized weights with the routers' screens.
    func shapes(_ layout: ExpertLayout) -> [TensorShape] {
        guard layout == .packed, feedForward != .dense else { return shapes() }
        let packed = packedShapes()
        guard quantization != nil else { return packed }
        return packed.flatMap { shape in
            guard shape.role == .router else { return [shape] }
            let names = RouterScreenNames(weight: shape.name)
            return [
                shape, TensorShape(name: names.rows, shape: shape.shape, role: .routerScreen),
                TensorShape(name: names.bounds, shape: [shape.shape[0]], role: .routerScreenBounds),
            ]
        }
    }

    private func packedShapes() -> [TensorShape] {
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

/// Where a quantized checkpoint keeps the screen of a router's weights.
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
    /// The same with the routers' weights in int8 beside them.
    func withRouterScreens() -> ParameterSet {
        ParameterSet(
            all.flatMap { parameter in
                guard parameter.role == .router else { return [parameter] }
                let names = RouterScreenNames(weight: parameter.name)
                let screen = RouterScreen(of: parameter.tensor)
                return [
                    parameter, Parameter(name: names.rows, tensor: screen.rows, role: .routerScreen),
                    Parameter(name: names.bounds, tensor: screen.bounds, role: .routerScreenBounds),
                ]
            })
    }

    /// The screen of a router's weights, if the checkpoint has one.
    func routerScreen(of weight: String) -> RouterScreen? {
        let names = RouterScreenNames(weight: weight)
        guard let rows = try? self(names.rows), let bounds = try? self(names.bounds) else { return nil }
        return RouterScreen(rows: rows.tensor, bounds: bounds.tensor)
    }

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
        try MonetLanguageModel(
            configuration: configuration, parameters: parameters.packed(configuration),
            ownMask: ownMask)
    }
}
