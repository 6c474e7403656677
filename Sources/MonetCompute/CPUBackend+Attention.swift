import CMonetKernels
import Foundation

extension CPUBackend {
    /// Query rows of one block: the block's scores stay in the cache, no T × T matrix is stored.
    private static var queryBlock: Int { 64 }

    public func attention(_ input: AttentionInput) throws -> AttentionResult {
        let layout = try AttentionLayout(input)
        let query = rotated(input.query, heads: input.heads, layout: layout, input: input)
        let key = rotated(input.key, heads: input.keyValueHeads, layout: layout, input: input)
        if let cache = input.cache { try append(key: key, input: input, layout: layout, to: cache) }

        let output = Tensor(uninitialized: input.query.shape)
        let logSumExp = Tensor(uninitialized: [input.query.rowCount, input.heads])
        let blocks = (layout.length + Self.queryBlock - 1) / Self.queryBlock
        // Heads that share keys are neighbours, so that rotated copies and cache lines are reused.
        pool.parallel(chunks: input.sequences * input.heads * blocks) { chunk in
            // Late blocks look back furthest: start with them for balance.
            let block = blocks - 1 - chunk / (input.sequences * input.heads)
            let rest = chunk % (input.sequences * input.heads)
            let (sequence, head) = (rest / input.heads, rest % input.heads)
            let rows = (block * Self.queryBlock)..<min(layout.length, (block + 1) * Self.queryBlock)
            attend(
                rows: rows, sequence: sequence, head: head, query: query, key: key, input: input,
                layout: layout,
                output: output, logSumExp: logSumExp)
        }
        return AttentionResult(output: output, query: query, key: key, logSumExp: logSumExp)
    }

    /// Softmax(q · kᵀ) · v for some rows of one head of one sequence.
    private func attend(
        rows: Range<Int>, sequence: Int, head: Int, query: Tensor, key: Tensor, input: AttentionInput,
        layout: AttentionLayout, output: Tensor, logSumExp: Tensor
    ) {
        let width = layout.headWidth
        let start = input.startPositions[sequence]
        let visible = start + rows.upperBound
        let group = head / layout.headsPerKey
        let keys: UnsafeMutablePointer<Float>
        let values: UnsafeMutablePointer<Float>
        let stride = layout.keyStride
        if let cache = input.cache {
            let base = sequence * cache.keys.shape[1] * stride + group * width
            keys = cache.keys.pointer + base
            values = cache.values.pointer + base
        } else {
            let base = sequence * layout.length * stride + group * width
            keys = key.pointer + base
            values = input.value.pointer + base
        }
        let firstRow = sequence * layout.length + rows.lowerBound
        let queries = query.pointer + firstRow * layout.queryStride + head * width
        let out = output.pointer + firstRow * layout.queryStride + head * width
        if rows.count == 1 {
            attendOne(
                queries, keys: keys, keyStride: stride, values: values, valueStride: stride, count: visible,
                width: width, scale: layout.scale, out: out,
                logSumExp: logSumExp.pointer + firstRow * input.heads + head)
            return
        }
        let scores = Tensor(uninitialized: [rows.count, visible])
        matrixProduct.singlePrecision(
            m: rows.count, n: visible, k: width,
            MatrixOperand(UnsafeMutableRawPointer(queries), stride: layout.queryStride),
            MatrixOperand(UnsafeMutableRawPointer(keys), stride: stride, transposed: true),
            c: scores.pointer, cStride: visible, accumulate: false)
        for row in rows {
            let line = scores.pointer + (row - rows.lowerBound) * visible
            let seen = start + row + 1
            logSumExp.pointer[(sequence * layout.length + row) * input.heads + head] =
                kernels.softmax(line, layout.scale, seen)
            if seen < visible { memset(line + seen, 0, (visible - seen) * 4) }
        }
        matrixProduct.singlePrecision(
            m: rows.count, n: width, k: visible,
            MatrixOperand(UnsafeMutableRawPointer(scores.pointer), stride: visible),
            MatrixOperand(UnsafeMutableRawPointer(values), stride: stride),
            c: out, cStride: layout.queryStride, accumulate: false)
    }

    /// One query against all keys, for decoding.
    private func attendOne(
        _ query: UnsafeMutablePointer<Float>, keys: UnsafeMutablePointer<Float>, keyStride: Int,
        values: UnsafeMutablePointer<Float>, valueStride: Int, count: Int, width: Int, scale: Float,
        out: UnsafeMutablePointer<Float>, logSumExp: UnsafeMutablePointer<Float>
    ) {
        let scores = Tensor(uninitialized: [count])
        instructionSet.functions.rows.0.dot(
            scores.pointer, count, query, width, nil, 1, keys, keyStride * 4, count, width)
        logSumExp.pointee = kernels.softmax(scores.pointer, scale, count)
        memset(out, 0, width * 4)
        for position in 0..<count {
            kernels.axpy(out, scores.pointer[position], values + position * valueStride, width)
        }
    }

    private func rotate(
        _ x: UnsafeMutablePointer<Float>, position: Int, sign: Float, _ table: RotaryTable
    ) {
        let half = table.cosine.columnCount
        kernels.rotate(
            x, table.cosine.pointer + position * half, table.sine.pointer + position * half, sign, half)
    }

    private func rotated(_ x: Tensor, heads: Int, layout: AttentionLayout, input: AttentionInput) -> Tensor {
        let result = x.copy()
        rotateAll(result, heads: heads, sign: 1, layout: layout, input: input)
        return result
    }

    private func rotateAll(
        _ x: Tensor, heads: Int, sign: Float, layout: AttentionLayout, input: AttentionInput
    ) {
        let width = layout.headWidth
        pool.forEachRange(of: x.rowCount, minimum: 32) { range, _ in
            for row in range {
                let position = input.startPositions[row / layout.length] + row % layout.length
                for head in 0..<heads {
                    rotate(
                        x.pointer + (row * heads + head) * width, position: position, sign: sign, input.rotary
                    )
                }
            }
        }
    }

    private func append(
        key: Tensor, input: AttentionInput, layout: AttentionLayout, to cache: AttentionCache
    ) throws {
        let stride = layout.keyStride
        let capacity = cache.keys.shape[1]
        for sequence in 0..<input.sequences {
            let start = input.startPositions[sequence]
            guard start + layout.length <= capacity else {
                throw ComputeError.indexOutOfRange(
                    operation: "key-value cache", index: start + layout.length - 1, limit: capacity)
            }
            let target = (sequence * capacity + start) * stride
            let source = sequence * layout.length * stride
            memcpy(cache.keys.pointer + target, key.pointer + source, layout.length * stride * 4)
            memcpy(cache.values.pointer + target, input.value.pointer + source, layout.length * stride * 4)
        }
    }

    public func attentionGradient(
        _ outputGradient: Tensor, input: AttentionInput, result: AttentionResult,
        into queryGradient: Tensor, keyGradient: Tensor, valueGradient: Tensor
    ) throws {
        let layout = try AttentionLayout(input)
        try requireShape(outputGradient, input.query.shape, "attention gradient")
        let dQuery = Tensor(zeros: input.query.shape)
        let dKey = Tensor(zeros: input.key.shape)
        // One chunk a key-value head: its gradients are sums over query heads in a fixed order.
        pool.parallel(chunks: input.sequences * input.keyValueHeads) { chunk in
            let (sequence, group) = (chunk / input.keyValueHeads, chunk % input.keyValueHeads)
            for head in (group * layout.headsPerKey)..<((group + 1) * layout.headsPerKey) {
                attendGradient(
                    sequence: sequence, head: head, outputGradient: outputGradient, input: input,
                    result: result,
                    layout: layout, dQuery: dQuery, dKey: dKey, dValue: valueGradient)
            }
        }
        rotateAll(dQuery, heads: input.heads, sign: -1, layout: layout, input: input)
        rotateAll(dKey, heads: input.keyValueHeads, sign: -1, layout: layout, input: input)
        try accumulate(dQuery, into: queryGradient)
        try accumulate(dKey, into: keyGradient)
    }

    private func attendGradient(
        sequence: Int, head: Int, outputGradient: Tensor, input: AttentionInput, result: AttentionResult,
        layout: AttentionLayout, dQuery: Tensor, dKey: Tensor, dValue: Tensor
    ) {
        let (width, length, stride) = (layout.headWidth, layout.length, layout.keyStride)
        let base = sequence * length * stride + head / layout.headsPerKey * width
        let keys = MatrixOperand(UnsafeMutableRawPointer(result.key.pointer + base), stride: stride)
        let keysTransposed = MatrixOperand(keys.address, stride: stride, transposed: true)
        let valuesTransposed = MatrixOperand(
            UnsafeMutableRawPointer(input.value.pointer + base), stride: stride, transposed: true)
        for start in Swift.stride(from: 0, to: length, by: Self.queryBlock) {
            let rows = start..<min(length, start + Self.queryBlock)
            let visible = rows.upperBound
            let first = (sequence * length + start) * layout.queryStride + head * width
            let queries = MatrixOperand(
                UnsafeMutableRawPointer(result.query.pointer + first), stride: layout.queryStride)
            let dOut = MatrixOperand(
                UnsafeMutableRawPointer(outputGradient.pointer + first), stride: layout.queryStride)
            let p = Tensor(uninitialized: [rows.count, visible])
            let d = Tensor(uninitialized: [rows.count, visible])
            matrixProduct.singlePrecision(
                m: rows.count, n: visible, k: width, queries, keysTransposed, c: p.pointer, cStride: visible,
                accumulate: false)
            matrixProduct.singlePrecision(
                m: rows.count, n: visible, k: width, dOut, valuesTransposed, c: d.pointer, cStride: visible,
                accumulate: false)
            for row in rows {
                let (pRow, dRow) = (p.pointer + (row - start) * visible, d.pointer + (row - start) * visible)
                let token = sequence * length + row
                let seen = row + 1
                kernels.exp_shifted(
                    pRow, layout.scale, result.logSumExp.pointer[token * input.heads + head], seen)
                let offset = token * layout.queryStride + head * width
                let delta = kernels.dot(
                    outputGradient.pointer + offset, result.output.pointer + offset, width)
                kernels.softmax_gradient(dRow, pRow, delta, layout.scale, seen)
                if seen < visible {
                    memset(pRow + seen, 0, (visible - seen) * 4)
                    memset(dRow + seen, 0, (visible - seen) * 4)
                }
            }
            let pTransposed = MatrixOperand(
                UnsafeMutableRawPointer(p.pointer), stride: visible, transposed: true)
            let dScores = MatrixOperand(UnsafeMutableRawPointer(d.pointer), stride: visible)
            let dTransposed = MatrixOperand(dScores.address, stride: visible, transposed: true)
            matrixProduct.singlePrecision(
                m: visible, n: width, k: rows.count, pTransposed, dOut, c: dValue.pointer + base,
                cStride: stride,
                accumulate: true)
            matrixProduct.singlePrecision(
                m: rows.count, n: width, k: visible, dScores, keys, c: dQuery.pointer + first,
                cStride: layout.queryStride, accumulate: false)
            matrixProduct.singlePrecision(
                m: visible, n: width, k: rows.count, dTransposed, queries, c: dKey.pointer + base,
                cStride: stride,
                accumulate: true)
        }
    }
}

/// Checked extents of an attention call.
private struct AttentionLayout {
    /// Tokens of each sequence.
    let length: Int
    let headWidth: Int
    let headsPerKey: Int
    let queryStride: Int
    let keyStride: Int
    let scale: Float

    init(_ input: AttentionInput) throws {
        let tokens = input.query.rowCount
        func check(_ condition: Bool, _ expected: String, _ found: String) throws {
            if !condition {
                throw ComputeError.shapeMismatch(operation: "attention", expected: expected, found: found)
            }
        }
        try check(
            input.heads > 0 && input.keyValueHeads > 0 && input.heads % input.keyValueHeads == 0,
            "query heads to be a multiple of key-value heads", "\(input.heads) and \(input.keyValueHeads)")
        try check(
            input.sequences > 0 && tokens % input.sequences == 0
                && input.startPositions.count == input.sequences,
            "\(input.sequences) sequences of equal length with a start each",
            "\(tokens) tokens, \(input.startPositions.count) starts")
        try check(
            input.query.columnCount % input.heads == 0, "a width that \(input.heads) heads divide",
            "\(input.query.columnCount)")
        headWidth = input.query.columnCount / input.heads
        length = tokens / input.sequences
        headsPerKey = input.heads / input.keyValueHeads
        queryStride = input.heads * headWidth
        keyStride = input.keyValueHeads * headWidth
        scale = 1 / Float(headWidth).squareRoot()
        for other in [input.key, input.value] {
            try check(
                other.shape == [tokens, keyStride], "keys and values [\(tokens), \(keyStride)]",
                "\(other.shape)")
        }
        let reach = (input.startPositions.max() ?? 0) + length
        try check(
            input.rotary.cosine.columnCount * 2 == headWidth && input.rotary.cosine.rowCount >= reach,
            "a rotary table [\(reach) or more, \(headWidth / 2)]", "\(input.rotary.cosine.shape)")
    }
}
