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
    ///   - positions: where each sequence stands, with the rotations in use and this layer's cache.
    func callAsFunction(
        _ x: Variable, positions: SequencePositions, layer: Int, _ context: ForwardContext
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
                keyValueHeads: keyValueHeads, segments: positions.segments(layer: layer))
        }
        return try output(mixed, context)
    }
}

/// Where the tokens of a batch stand.
struct SequencePositions {
    /// Tokens of each sequence in this run, and the position of the first.
    let counts: [Int]
    let starts: [Int]
    /// Earlier tokens of each sequence, if kept.
    let caches: [KVCache]?
    /// Rotations for all positions in use.
    let rotary: RotaryTable

    func segments(layer: Int) -> [AttentionSegment] {
        counts.indices.map {
            AttentionSegment(count: counts[$0], position: starts[$0], cache: caches?[$0].layer(layer))
        }
    }
}
