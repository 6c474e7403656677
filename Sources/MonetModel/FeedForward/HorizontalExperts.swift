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

    /// Whole columns of experts removed, that is (i, j) for every i, become zeros in V_j and b_j, which nothing
    /// else uses. Other masks cannot be baked in: halves serve many experts.
    public func bake(_ mask: UnitMask, into parameters: [Parameter], layerCount: Int) throws
        -> (parameters: [Parameter], halves: Int)?
    {
        guard let columns = mask.removedColumns(perSide: settings.perSide) else { return nil }
        let units = settings.width
        var zeroed: [String: (columns: [Int], rows: [Int])] = [:]
        for layer in 0..<layerCount {
            guard let removed = columns[layer / settings.layersPerRouter] else { continue }
            let prefix = "model.layers.\(layer).moe."
            zeroed[prefix + "v.weight"] = (removed.flatMap { ($0 * units)..<(($0 + 1) * units) }, [])
            zeroed[prefix + "b"] = ([], removed)
        }
        let baked = try parameters.map { parameter in
            try zeroed[parameter.name].map { try parameter.zeroing(columns: $0.columns, rows: $0.rows) }
                ?? parameter
        }
        return (baked, columns.values.reduce(0) { $0 + $1.count })
    }
}

extension UnitMask {
    /// The right halves all of whose experts are removed, by group, if the mask is nothing but these.
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
    /// A float32 copy with zeros in some columns and rows.
    fileprivate func zeroing(columns: [Int], rows: [Int]) throws -> Parameter {
        let width = tensor.columnCount
        var values = tensor.floats()
        for row in 0..<tensor.rowCount { for column in columns { values[row * width + column] = 0 } }
        for row in rows { for column in 0..<width { values[row * width + column] = 0 } }
        return Parameter(name: name, tensor: Tensor(values, shape: tensor.shape), role: role)
    }
}
