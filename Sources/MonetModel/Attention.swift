import MonetCompute

/// Causal grouped-query attention with rotary positions.
struct Attention: Sendable {
    let query: Linear
    let key: Linear
    let value: Linear
    let output: Linear
    let heads: Int
    let keyValueHeads: Int

    /// - Parameters:
    ///   - x: normalized residual stream, `[tokens, d]`.
    ///   - positions: where each sequence stands, with the rotations in use.
    ///   - cache: this layer's earlier keys and values.
    func callAsFunction(
        _ x: Variable, positions: SequencePositions, cache: AttentionCache?, _ context: ForwardContext
    ) throws -> Variable {
        let projected =
            query.bias == nil && key.bias == nil && value.bias == nil
            ? try context.tape.projections(x, weights: [query, key, value].map { context($0.weight) })
            : [try query(x, context), try key(x, context), try value(x, context)]
        let mixed = try context.tape.attention(
            query: projected[0], key: projected[1], value: projected[2]
        ) { query, key, value in
            AttentionInput(
                query: query, key: key, value: value, rotary: positions.rotary, heads: heads,
                keyValueHeads: keyValueHeads, sequences: positions.starts.count,
                startPositions: positions.starts,
                cache: cache)
        }
        return try output(mixed, context)
    }
}

/// Where the tokens of a batch stand.
struct SequencePositions: Sendable {
    /// Position of each sequence's first token.
    let starts: [Int]
    /// Rotations for all positions in use.
    let rotary: RotaryTable
}
