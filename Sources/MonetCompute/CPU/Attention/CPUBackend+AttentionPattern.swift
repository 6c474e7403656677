import CMonetKernels
import Foundation

// Attention in two steps, for passes that observe or replace its probabilities: plain loops over tokens and
// heads, which store all probabilities at once, as `attention` never does.

extension CPUBackend {
    public func attentionPattern(_ input: AttentionInput) throws -> Tensor {
        // Rotates, checks, and fills the caches.
        let result = try attention(input)
        let layout = try AttentionLayout(input)
        for segment in layout.segments { try layout.requireWhole(segment) }
        let pattern = Tensor(zeros: [input.query.rowCount, layout.heads, layout.reach])
        for segment in layout.segments {
            let keys = headRows(of: segment, cached: segment.cache?.keys, new: result.key, layout)
            forEachHead(of: segment, layout) { row, head, seen in
                let line = pattern.pointer + (row * layout.heads + head) * layout.reach
                let query = result.query.pointer + row * layout.queryStride + head * layout.headWidth
                let rows = keys.pointer + head / layout.headsPerKey * keys.shape[1] * layout.headWidth
                for key in 0..<seen {
                    line[key] = kernels.dot(query, rows + key * layout.headWidth, layout.headWidth)
                }
                _ = kernels.softmax(line, layout.scale, seen)
            }
        }
        return pattern
    }

    public func attentionMixture(_ pattern: Tensor, input: AttentionInput) throws -> Tensor {
        let layout = try AttentionLayout(input)
        try requireShape(pattern, [input.query.rowCount, layout.heads, layout.reach], "attention pattern")
        try requireFloat32(pattern, "attention pattern")
        let output = Tensor(zeros: input.query.shape)
        for segment in layout.segments {
            if let cache = segment.cache { try layout.check(cache, segment) }
            try layout.requireWhole(segment)
            let values = headRows(of: segment, cached: segment.cache?.values, new: input.value, layout)
            forEachHead(of: segment, layout) { row, head, seen in
                let line = pattern.pointer + (row * layout.heads + head) * layout.reach
                let out = output.pointer + row * layout.queryStride + head * layout.headWidth
                let rows = values.pointer + head / layout.headsPerKey * values.shape[1] * layout.headWidth
                for key in 0..<seen {
                    kernels.axpy(out, line[key], rows + key * layout.headWidth, layout.headWidth)
                }
            }
        }
        return output
    }

    public func attentionMixtureGradient(
        _ outputGradient: Tensor, pattern: Tensor, input: AttentionInput, into patternGradient: Tensor,
        valueGradient: Tensor
    ) throws {
        let layout = try AttentionLayout(input)
        try requireWholeSequences(layout, outputGradient, input)
        try requireFloat32(
            [pattern, patternGradient], [input.query.rowCount, layout.heads, layout.reach],
            "attention pattern's gradient")
        try requireFloat32([input.value, valueGradient], input.value.shape, "attention pattern's gradient")
        let (width, stride) = (layout.headWidth, layout.keyStride)
        // Heads that share a value row run on one thread, in order.
        forEachGroup(layout) { segment, head in
            for row in segment.firstRow..<(segment.firstRow + segment.count) {
                let line = (row * layout.heads + head) * layout.reach
                let d = outputGradient.pointer + row * layout.queryStride + head * width
                for key in 0...(row - segment.firstRow) {
                    let offset = (segment.firstRow + key) * stride + head / layout.headsPerKey * width
                    patternGradient.pointer[line + key] += kernels.dot(d, input.value.pointer + offset, width)
                    kernels.axpy(valueGradient.pointer + offset, pattern.pointer[line + key], d, width)
                }
            }
        }
    }

    public func attentionPatternGradient(
        _ patternGradient: Tensor, pattern: Tensor, input: AttentionInput, into queryGradient: Tensor,
        keyGradient: Tensor
    ) throws {
        let layout = try AttentionLayout(input)
        try requireWholeSequences(layout, queryGradient, input)
        try requireFloat32(
            [pattern, patternGradient], [input.query.rowCount, layout.heads, layout.reach],
            "attention pattern's gradient")
        try requireFloat32([input.query], input.query.shape, "attention pattern's gradient")
        try requireFloat32([input.key, keyGradient], input.key.shape, "attention pattern's gradient")
        let (width, stride) = (layout.headWidth, layout.keyStride)
        let (query, key) = (input.query.copy(), input.key.copy())
        let (dQuery, dKey) = (Tensor(zeros: query.shape), Tensor(zeros: key.shape))
        rotateAll(query, heads: layout.heads, sign: 1, input, layout)
        rotateAll(key, heads: layout.heads / layout.headsPerKey, sign: 1, input, layout)
        forEachGroup(layout) { segment, head in
            let scores = Tensor(uninitialized: [layout.reach])
            for row in segment.firstRow..<(segment.firstRow + segment.count) {
                let line = (row * layout.heads + head) * layout.reach
                let seen = row - segment.firstRow + 1
                memcpy(scores.pointer, patternGradient.pointer + line, seen * 4)
                let delta = kernels.dot(scores.pointer, pattern.pointer + line, seen)
                kernels.softmax_gradient(scores.pointer, pattern.pointer + line, delta, layout.scale, seen)
                let place = row * layout.queryStride + head * width
                for past in 0..<seen {
                    let offset = (segment.firstRow + past) * stride + head / layout.headsPerKey * width
                    kernels.axpy(dQuery.pointer + place, scores.pointer[past], key.pointer + offset, width)
                    kernels.axpy(dKey.pointer + offset, scores.pointer[past], query.pointer + place, width)
                }
            }
        }
        rotateAll(dQuery, heads: layout.heads, sign: -1, input, layout)
        rotateAll(dKey, heads: layout.heads / layout.headsPerKey, sign: -1, input, layout)
        try accumulate(dQuery, into: queryGradient)
        try accumulate(dKey, into: keyGradient)
    }

    private func requireWholeSequences(_ layout: AttentionLayout, _ gradient: Tensor, _ input: AttentionInput)
        throws
    {
        try requireFloat32([gradient], input.query.shape, "attention gradient")
        guard layout.segments.allSatisfy({ $0.cache == nil && $0.position == 0 }) else {
            throw ComputeError.shapeMismatch(
                operation: "attention gradient", expected: "whole sequences without a cache",
                found: "earlier positions")
        }
    }

    /// Rows of a sequence's keys or values from its first token on, `[key-value heads, tokens, width]`.
    private func headRows(
        of segment: AttentionLayout.Segment, cached: Tensor?, new: Tensor, _ layout: AttentionLayout
    ) -> Tensor {
        let (heads, width) = (layout.heads / layout.headsPerKey, layout.headWidth)
        let count = segment.position + segment.count
        let rows = Tensor(uninitialized: [heads, count, width])
        for head in 0..<heads {
            for token in 0..<count {
                let out = rows.pointer + (head * count + token) * width
                if let cached {
                    cached.readRow(
                        head * (cached.rowCount / heads) + token, columns: 0..<width, into: out,
                        by: instructionSet)
                } else {
                    memcpy(
                        out, new.pointer + (segment.firstRow + token) * layout.keyStride + head * width,
                        width * 4)
                }
            }
        }
        return rows
    }

    /// Rotates every token's heads in place, forward (1) or back (-1).
    private func rotateAll(
        _ x: Tensor, heads: Int, sign: Float, _ input: AttentionInput, _ layout: AttentionLayout
    ) {
        for segment in layout.segments {
            for token in 0..<segment.count {
                let row = x.pointer + (segment.firstRow + token) * heads * layout.headWidth
                rotate(
                    row, heads: heads, width: layout.headWidth, sign: sign,
                    position: segment.position + token, input.rotary, into: row)
            }
        }
    }

    /// Every token and head of a sequence, with the number of keys that the token attends to.
    private func forEachHead(
        of segment: AttentionLayout.Segment, _ layout: AttentionLayout,
        _ body: (_ row: Int, _ head: Int, _ seen: Int) -> Void
    ) {
        pool.forEachRange(of: segment.count, minimum: 4) { range, _ in
            for token in range {
                for head in 0..<layout.heads {
                    body(segment.firstRow + token, head, segment.position + token + 1)
                }
            }
        }
    }

    /// Every sequence and head; heads that share a key-value head run on one thread.
    private func forEachGroup(_ layout: AttentionLayout, _ body: (AttentionLayout.Segment, Int) -> Void) {
        let groups = layout.heads / layout.headsPerKey
        pool.parallel(chunks: layout.segments.count * groups) { chunk in
            for head in 0..<layout.headsPerKey {
                body(layout.segments[chunk / groups], chunk % groups * layout.headsPerKey + head)
            }
        }
    }
}
