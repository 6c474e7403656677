import MonetCompute

/// Horizontally decomposed experts (equations 6 to 12): expert (i, j) is V_j σ(U_i x + b¹_i) + b²_j.
///
///     a_i = σ(U_i h + b¹_i)
///     c_j = Σ_h ĝ2_hj Σ_i ĝ1_hi a_i
///     y   = Σ_j V_j c_j + Σ_j (Σ_h ĝ2_hj) b²_j
public struct HorizontalExperts: MonetExperts {
    public static let name = "horizontal"
    public static let presetEnding = "hd"
    public static let plan = ExpertPlan.horizontal
    public static let names = ExpertTensorNames(
        up: ["u"], down: [(matrices: ["v"], bias: "b", packed: "down")])

    public var settings: ExpertSettings

    public init(_ settings: ExpertSettings = ExpertSettings()) { self.settings = settings }

    /// If whole columns of experts are removed, that is (i, j) for every i, their V_j and b_j, which no other
    /// expert uses, become zero. Other masks cannot be baked in, because halves serve many experts.
    public func bake(_ mask: UnitMask, into parameters: [Parameter], layerCount: Int) throws -> BakedMask? {
        guard let columns = mask.removedColumns(perSide: settings.perSide) else { return nil }
        let units = settings.width
        var changes: [String: (Parameter) -> Parameter] = [:]
        for layer in 0..<layerCount {
            guard let removed = columns[layer / settings.layersPerRouter] else { continue }
            let prefix = "model.layers.\(layer).moe."
            changes[prefix + "v.weight"] = {
                $0.scaling(
                    columns: removed.flatMap { half in
                        ((half * units)..<((half + 1) * units)).map { (index: $0, strength: 0) }
                    })
            }
            changes[prefix + "b"] = { $0.zeroing(rows: removed) }
        }
        let baked = parameters.map { changes[$0.name]?($0) ?? $0 }
        return BakedMask(
            parameters: baked, parts: columns.values.reduce(0) { $0 + $1.count },
            description: "right halves' V and b are zero")
    }
}

extension UnitMask {
    /// The right halves all of whose experts are removed, by group, if the mask consists only of these.
    func removedColumns(perSide experts: Int) -> [Int: [Int]]? {
        var result: [Int: [Int]] = [:]
        for group in groups {
            let entries = entries(group: group)
            guard entries.allSatisfy({ $0.strength == 0 }) else { return nil }
            let columns = Dictionary(grouping: entries, by: { $0.index % experts })
            guard columns.values.allSatisfy({ $0.count == experts }) else { return nil }
            if !columns.isEmpty { result[group] = columns.keys.sorted() }
        }
        return result
    }
}

extension Parameter {
    /// A float32 copy with some columns multiplied.
    func scaling(columns: [(index: Int, strength: Float)]) -> Parameter {
        guard !columns.isEmpty else { return self }
        let width = tensor.columnCount
        var values = tensor.floats()
        for row in 0..<tensor.rowCount {
            for (column, strength) in columns { values[row * width + column] *= strength }
        }
        return Parameter(name: name, tensor: Tensor(values, shape: tensor.shape), role: role)
    }

    /// A float32 copy with zeros in some rows.
    fileprivate func zeroing(rows: [Int]) -> Parameter {
        let width = tensor.columnCount
        var values = tensor.floats()
        for row in rows { for column in 0..<width { values[row * width + column] = 0 } }
        return Parameter(name: name, tensor: Tensor(values, shape: tensor.shape), role: role)
    }
}
