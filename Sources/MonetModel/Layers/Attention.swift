import MonetCompute

/// Causal grouped-query attention with rotary position embedding.
struct Attention: Sendable {
    let query: Linear
    let key: Linear
    let value: Linear
    let output: Linear
    let heads: Int
    let keyValueHeads: Int

    /// - Parameters:
    ///   - x: normalized residual stream, `[tokens, d]`.
    ///   - values: the stream that values are taken from, if it is another variable than `x`.
    ///   - positions: the position of each sequence, with the rotations in use and the caches.
    func callAsFunction(
        _ x: Variable, values: Variable? = nil, positions: SequencePositions, layer: Int, _ pass: ForwardPass
    ) throws -> Variable {
        let projected =
            values == nil && query.isPlain && key.isPlain && value.isPlain
            ? try pass.tape.projections(x, weights: [query, key, value].map { pass($0.weight) })
            : [try query(x, pass), try key(x, pass), try value(values ?? x, pass)]
        let mixed = try pass.tape.attention(
            query: pass.hook(.q, layer, projected[0], heads: heads),
            key: pass.hook(.k, layer, projected[1], heads: keyValueHeads),
            value: pass.hook(.v, layer, projected[2], heads: keyValueHeads),
            AttentionShape(
                rotary: positions.rotary, heads: heads, keyValueHeads: keyValueHeads,
                segments: positions.segments(layer: layer)),
            pattern: pass.isHooked(.pattern, layer) ? { try pass.hook(.pattern, layer, $0) } : nil)
        return try output(pass.hook(.z, layer, mixed, heads: heads), pass)
    }
}

/// The positions of a batch's tokens.
struct SequencePositions {
    /// Tokens of each sequence in this run, and the position of the first.
    let counts: [Int]
    let starts: [Int]
    /// Caches with room for the new tokens, for sequences that have one.
    let caches: [KVCache?]
    /// Rotations for all positions in use.
    let rotary: RotaryTable

    func segments(layer: Int) -> [AttentionSegment] {
        counts.indices.map {
            AttentionSegment(count: counts[$0], position: starts[$0], cache: caches[$0]?.layer(layer))
        }
    }
}
