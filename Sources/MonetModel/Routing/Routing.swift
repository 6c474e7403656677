import MonetCompute

/// The routing of a batch in one group of layers.
public struct Routing: UnitActivations {
    public let group: Int
    /// The layer that owns the router.
    public let layer: Int
    /// ĝ1 and ĝ2, `[tokens, heads, experts]`, with exact zeros outside the selection, before any strengths.
    public let left: Variable
    public let right: Variable
    /// The same with a head for each forced expert, as expert layers read it.
    let executed: (left: Variable, right: Variable)
    /// The routing through which experts and routers learn, if some sequences have experts reserved.
    let learning: ExpertLearning?
    /// The same with strengths.
    public let experts: ExpertRouting
    /// Auxiliary losses and usage, left and right; empty unless requested.
    public let objectives: [RouterObjective]

    public func reader() -> any UnitScoreReader { PairScores(experts) }

    public func lastRows(_ count: Int) -> any UnitActivations {
        let first = left.value.shape[0] - count
        func last(_ side: Variable) -> Variable { Variable(side.value.lastRows(count)) }
        func moved(_ rows: Range<Int>) -> Range<Int> {
            max(0, rows.lowerBound - first)..<max(0, rows.upperBound - first)
        }
        let executed = (left: last(executed.left), right: last(executed.right))
        let strengths = experts.strengths.compactMap { part -> RowStrengths? in
            let rows = moved(part.rows)
            return rows.isEmpty ? nil : RowStrengths(rows: rows, factors: part.factors)
        }
        return Routing(
            group: group, layer: layer, left: last(left), right: last(right), executed: executed,
            learning: nil,
            experts: ExpertRouting(
                left: executed.left.value, right: executed.right.value, strengths: strengths,
                isNormalized: experts.isNormalized,
                unnormalizedRows: experts.unnormalizedRows.map(moved).filter { !$0.isEmpty }),
            objectives: objectives)
    }

    /// Shares of each side's experts that are selected, mean of both sides.
    public func weightShares() -> WeightShares {
        let shares = [left, right].map { side in
            let (heads, experts) = (side.value.shape[1], side.value.shape[2])
            let values = side.value.floats()
            let selected = (0..<side.value.shape[0]).map { token in
                Set(
                    (0..<(heads * experts)).filter { values[token * heads * experts + $0] > 0 }
                        .map { $0 % experts })
            }
            return WeightShares(
                ofToken: Double(selected.reduce(0) { $0 + $1.count })
                    / Double(max(1, selected.count * experts)),
                ofBatch: Double(selected.reduce(into: Set<Int>()) { $0.formUnion($1) }.count)
                    / Double(max(1, experts)))
        }
        return WeightShares(
            ofToken: shares.reduce(0) { $0 + $1.ofToken } / 2,
            ofBatch: shares.reduce(0) { $0 + $1.ofBatch } / 2)
    }
}

/// The batch statistics that normalized a router; training updates the running statistics with them.
public struct RouterBatchStatistics: Sendable {
    /// The layer that owns the router.
    public let layer: Int
    /// Left and right.
    public let sides: [RouterStatistics]
    /// The number of logits per head from which they were computed.
    public let count: Int

    /// Collects the statistics.
    public init(layer: Int, sides: [RouterStatistics], count: Int) {
        self.layer = layer
        self.sides = sides
        self.count = count
    }
}
