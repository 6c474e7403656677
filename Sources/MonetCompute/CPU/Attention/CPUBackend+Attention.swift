import CMonetKernels
import Foundation

extension CPUBackend {
    /// Query rows and keys of one block: its scores stay in the cache, no T × T matrix is stored.
    private static var queryBlock: Int { 64 }
    /// Query rows whose scores for all keys are kept, in batch-invariant attention.
    private static var invariantQueries: Int { 16 }
    private static var keyBlock: Int { 512 }

    public func attention(_ input: AttentionInput) throws -> AttentionResult {
        let layout = try AttentionLayout(input)
        for tensor in [input.query, input.key, input.value] { try requireFloat32(tensor, "attention") }
        for tensor in [input.rotary.cosine, input.rotary.sine] { try requireFloat32(tensor, "attention") }
        let result = AttentionResult(
            output: Tensor(uninitialized: input.query.shape),
            query: Tensor(uninitialized: input.query.shape), key: Tensor(uninitialized: input.key.shape),
            logSumExp: Tensor(uninitialized: [input.query.rowCount, input.heads]))
        let single = layout.segments.filter { $0.count == 1 }
        if !single.isEmpty { try attendSingleTokens(single, input, layout, into: result) }
        if single.count < layout.segments.count { try attendBlocks(input, layout, into: result) }
        return result
    }

    /// Attention of the sequences of more than one token.
    private func attendBlocks(
        _ input: AttentionInput, _ layout: AttentionLayout, into result: AttentionResult
    ) throws {
        for (target, source, heads) in [
            (result.query, input.query, input.heads), (result.key, input.key, input.keyValueHeads),
        ] {
            for segment in layout.segments where segment.count > 1 {
                rotate(source, heads: heads, sign: 1, segment, input.rotary, into: target)
            }
        }
        if !isBatchInvariant { for segment in layout.segments { try layout.requireWhole(segment) } }
        try append(key: result.key, input: input, layout: layout)
        var tasks: [AttentionTask] = []
        let block = isBatchInvariant ? Self.invariantQueries : Self.queryBlock
        for (index, segment) in layout.segments.enumerated() where segment.count > 1 {
            for start in stride(from: 0, to: segment.count, by: block) {
                let rows = start..<min(segment.count, start + block)
                for group in 0..<input.keyValueHeads {
                    tasks.append(AttentionTask(segment: index, rows: rows, group: group))
                }
            }
        }
        // Late blocks attend to the most keys: starting with them balances the threads.
        tasks.reverse()
        pool.parallel(chunks: tasks.count) { chunk in
            let task = tasks[chunk]
            let segment = layout.segments[task.segment]
            let keys = CachedRows(
                segment.cache?.keys, new: result.key, segment: segment, group: task.group, layout: layout)
            let values = CachedRows(
                segment.cache?.values, new: input.value, segment: segment, group: task.group, layout: layout)
            let work = AttentionWork(
                task: task, segment: segment, keys: keys, values: values, result: result)
            guard isBatchInvariant else { return attendBlock(work, layout) }
            let beginning = segment.cache?.beginning.map { beginning in
                AttentionWork.Part(
                    positions: 0..<beginning.count,
                    keys: CachedRows(
                        beginning.keys, new: result.key, segment: segment, group: task.group, layout: layout),
                    values: CachedRows(
                        beginning.values, new: input.value, segment: segment, group: task.group,
                        layout: layout))
            }
            attendInOrder(work, beginning, layout)
        }
    }

    /// Softmax(q · kᵀ) · v for a block of rows of the heads that share keys, over blocks of keys (online
    /// softmax): the sums so far are scaled down when a larger score appears.
    private func attendBlock(_ work: AttentionWork, _ layout: AttentionLayout) {
        let (width, rows) = (layout.headWidth, work.task.rows)
        let firstRow = work.segment.firstRow + rows.lowerBound
        let visible = work.segment.position + rows.upperBound
        let scores = Tensor(uninitialized: [rows.count, min(Self.keyBlock, visible)])
        let largest = Tensor(uninitialized: [layout.headsPerKey, rows.count])
        let sums = Tensor(zeros: [layout.headsPerKey, rows.count])
        for index in 0..<largest.count { largest.pointer[index] = -.infinity }
        for start in stride(from: 0, to: visible, by: Self.keyBlock) {
            let count = min(Self.keyBlock, visible - start)
            let keys = work.keys.operand(start..<(start + count), backend: self)
            let values = work.values.operand(start..<(start + count), backend: self)
            for index in 0..<layout.headsPerKey {
                let head = work.task.group * layout.headsPerKey + index
                let offset = firstRow * layout.queryStride + head * width
                let out = work.result.output.pointer + offset
                var transposed = keys.operand
                transposed.isTransposed = true
                matrixProduct.singlePrecision(
                    m: rows.count, n: count, k: width,
                    MatrixOperand(
                        UnsafeMutableRawPointer(work.result.query.pointer + offset),
                        stride: layout.queryStride),
                    transposed, c: scores.pointer, cStride: count, accumulate: false)
                for row in 0..<rows.count {
                    let line = scores.pointer + row * count
                    let seen = max(0, min(count, work.segment.position + rows.lowerBound + row + 1 - start))
                    let place = index * rows.count + row
                    if seen > 0 {
                        let before = largest.pointer[place]
                        let sum = kernels.softmax_block(line, layout.scale, seen, largest.pointer + place)
                        let shrink = start == 0 ? 0 : exp(before - largest.pointer[place])
                        sums.pointer[place] = sums.pointer[place] * shrink + sum
                        if start > 0, shrink != 1 {
                            kernels.scale(
                                out + row * layout.queryStride, shrink, out + row * layout.queryStride, width)
                        }
                    }
                    if seen < count { memset(line + seen, 0, (count - seen) * 4) }
                }
                matrixProduct.singlePrecision(
                    m: rows.count, n: width, k: count,
                    MatrixOperand(UnsafeMutableRawPointer(scores.pointer), stride: count), values.operand,
                    c: out, cStride: layout.queryStride, accumulate: start > 0)
            }
            withExtendedLifetime((keys.copy, values.copy)) {}
        }
        for index in 0..<layout.headsPerKey {
            let head = work.task.group * layout.headsPerKey + index
            for row in 0..<rows.count {
                let place = index * rows.count + row
                let out = work.result.output.pointer + (firstRow + row) * layout.queryStride + head * width
                kernels.scale(out, 1 / sums.pointer[place], out, width)
                work.result.logSumExp.pointer[(firstRow + row) * layout.heads + head] =
                    largest.pointer[place] + log(sums.pointer[place])
            }
        }
    }

    /// The same for a block of rows of which each is computed as `attendSingleTokens` computes one: scores of all
    /// keys, their softmax, and the sum over all values in order, those of a shared beginning first.
    private func attendInOrder(
        _ work: AttentionWork, _ beginning: AttentionWork.Part?, _ layout: AttentionLayout
    ) {
        let (width, rows) = (layout.headWidth, work.task.rows)
        let firstRow = work.segment.firstRow + rows.lowerBound
        let visible = work.segment.position + rows.upperBound
        let parts =
            (beginning.map { [$0] } ?? []) + [
                AttentionWork.Part(
                    positions: (beginning?.positions.upperBound ?? 0)..<visible, keys: work.keys,
                    values: work.values)
            ]
        let kernelsOfKeys = parts.compactMap { $0.keys.kernels(instructionSet) }
        let kernelsOfValues = parts.compactMap { $0.values.kernels(instructionSet) }
        guard kernelsOfKeys.count == parts.count, kernelsOfValues.count == parts.count else { return }
        let scores = Tensor(uninitialized: [rows.count, visible])
        let index = Tensor(uninitialized: [rows.count], dtype: .int32)
        let places = index.address.assumingMemoryBound(to: Int32.self)
        for row in 0..<rows.count { places[row] = Int32(row) }
        // Sums of values that are stored without scales round as those of float32 values.
        let wide = parts.map { part in
            part.values.dtype.isQuantized
                ? nil : part.values.operand(0..<part.positions.count, backend: self)
        }
        for head in (work.task.group * layout.headsPerKey)..<((work.task.group + 1) * layout.headsPerKey) {
            let offset = firstRow * layout.queryStride + head * width
            for (part, kernels) in zip(parts, kernelsOfKeys) {
                kernels.dot(
                    scores.pointer + part.positions.lowerBound, visible, work.result.query.pointer + offset,
                    layout.queryStride * 4, nil, rows.count, part.keys.address, part.keys.rowBytes,
                    part.positions.count, width, nil)
            }
            let out = work.result.output.pointer + offset
            for row in 0..<rows.count {
                let line = scores.pointer + row * visible
                let seen = work.segment.position + rows.lowerBound + row + 1
                work.result.logSumExp.pointer[(firstRow + row) * layout.heads + head] = kernels.softmax(
                    line, layout.scale, seen)
                if seen < visible { memset(line + seen, 0, (visible - seen) * 4) }
                memset(out + row * layout.queryStride, 0, width * 4)
            }
            for (place, part) in parts.enumerated() {
                let line = scores.pointer + part.positions.lowerBound
                if let wide = wide[place] {
                    kernels.scatter_add(
                        out, layout.queryStride, places, rows.count, line, visible,
                        wide.operand.address.assumingMemoryBound(to: Float.self), wide.operand.stride,
                        part.positions.count, width)
                } else {
                    kernelsOfValues[place].accumulate(
                        out, layout.queryStride, nil, rows.count, line, visible, part.values.address,
                        part.values.rowBytes, part.positions.count, 0, width, width, nil)
                }
            }
        }
        withExtendedLifetime(wide) {}
    }

    /// Rotates the heads of a sequence's rows, forward (sign 1) or back (-1); `target` may be `source`.
    private func rotate(
        _ source: Tensor, heads: Int, sign: Float, _ segment: AttentionLayout.Segment, _ table: RotaryTable,
        into target: Tensor
    ) {
        let stride = source.columnCount
        pool.forEachRange(of: segment.count, minimum: 32) { range, _ in
            for row in range {
                let line = (segment.firstRow + row) * stride
                rotate(
                    source.pointer + line, heads: heads, width: stride / heads, sign: sign,
                    position: segment.position + row, table, into: target.pointer + line)
            }
        }
    }

    /// The same for one token, whose heads lie side by side.
    func rotate(
        _ source: UnsafePointer<Float>, heads: Int, width: Int, sign: Float, position: Int,
        _ table: RotaryTable, into target: UnsafeMutablePointer<Float>
    ) {
        let half = width / 2
        let (cosine, sine) = (table.cosine.pointer + position * half, table.sine.pointer + position * half)
        if UnsafePointer(target) != source { memcpy(target, source, heads * width * 4) }
        for head in 0..<heads { kernels.rotate(target + head * width, cosine, sine, sign, half) }
    }

    /// Writes the new keys and values to the caches, where a head's rows are contiguous for the queries.
    private func append(key: Tensor, input: AttentionInput, layout: AttentionLayout) throws {
        let (heads, width) = (input.keyValueHeads, layout.headWidth)
        for segment in layout.segments where segment.count > 1 {
            guard let cache = segment.cache else { continue }
            try layout.check(cache, segment)
            for (tensor, new) in [(cache.keys, key), (cache.values, input.value)] {
                let capacity = tensor.rowCount / heads
                let first = new.pointer + segment.firstRow * layout.keyStride
                pool.forEachRange(of: heads, minimum: 2) { range, _ in
                    for head in range {
                        store(
                            first + head * width, rows: segment.count, stride: layout.keyStride,
                            to: tensor, at: head * capacity + segment.position - segment.shared)
                    }
                }
            }
        }
    }

    /// Writes one head's rows to a cache, from a row of it on.
    func store(
        _ new: UnsafePointer<Float>, rows: Int, stride: Int, to cache: Tensor, at row: Int
    ) {
        let (width, rowBytes) = (cache.columnCount, cache.rowByteCount)
        let target = cache.address + row * rowBytes
        switch cache.dtype {
        case .float32:
            for row in 0..<rows { memcpy(target + row * rowBytes, new + row * stride, rowBytes) }
        case .bfloat16:
            let out = target.assumingMemoryBound(to: UInt16.self)
            for row in 0..<rows { kernels.f32_to_bf16(out + row * width, new + row * stride, width) }
        default:
            let lines = Tensor(uninitialized: [rows, width])
            for row in 0..<rows { memcpy(lines.pointer + row * width, new + row * stride, width * 4) }
            let stored = lines.converted(to: cache.dtype, by: instructionSet, pool: pool)
            memcpy(target, stored.address, stored.byteCount)
        }
    }

    public func attentionGradient(
        _ outputGradient: Tensor, input: AttentionInput, result: AttentionResult,
        into queryGradient: Tensor, keyGradient: Tensor, valueGradient: Tensor
    ) throws {
        let layout = try AttentionLayout(input)
        try requireFloat32(
            [outputGradient, input.query, result.query, result.output, queryGradient], input.query.shape,
            "attention gradient")
        try requireFloat32(
            [input.key, input.value, result.key, keyGradient, valueGradient], input.key.shape,
            "attention gradient")
        let dQuery = Tensor(zeros: input.query.shape)
        let dKey = Tensor(zeros: input.key.shape)
        // One chunk per key-value head: its gradients are sums over query heads in a fixed order.
        guard layout.segments.allSatisfy({ $0.cache == nil && $0.position == 0 }) else {
            throw ComputeError.shapeMismatch(
                operation: "attention gradient", expected: "whole sequences without a cache",
                found: "earlier positions")
        }
        pool.parallel(chunks: layout.segments.count * input.keyValueHeads) { chunk in
            let (index, group) = (chunk / input.keyValueHeads, chunk % input.keyValueHeads)
            let segment = layout.segments[index]
            for head in (group * layout.headsPerKey)..<((group + 1) * layout.headsPerKey) {
                attendGradient(
                    segment: segment, head: head, outputGradient: outputGradient, input: input,
                    result: result,
                    layout: layout, dQuery: dQuery, dKey: dKey, dValue: valueGradient)
            }
        }
        for (gradient, heads) in [(dQuery, input.heads), (dKey, input.keyValueHeads)] {
            for segment in layout.segments {
                rotate(gradient, heads: heads, sign: -1, segment, input.rotary, into: gradient)
            }
        }
        try accumulate(dQuery, into: queryGradient)
        try accumulate(dKey, into: keyGradient)
    }

    private func attendGradient(
        segment: AttentionLayout.Segment, head: Int, outputGradient: Tensor, input: AttentionInput,
        result: AttentionResult,
        layout: AttentionLayout, dQuery: Tensor, dKey: Tensor, dValue: Tensor
    ) {
        let (width, length, stride) = (layout.headWidth, segment.count, layout.keyStride)
        let base = segment.firstRow * stride + head / layout.headsPerKey * width
        let keys = MatrixOperand(UnsafeMutableRawPointer(result.key.pointer + base), stride: stride)
        let keysTransposed = MatrixOperand(keys.address, stride: stride, transposed: true)
        let valuesTransposed = MatrixOperand(
            UnsafeMutableRawPointer(input.value.pointer + base), stride: stride, transposed: true)
        for start in Swift.stride(from: 0, to: length, by: Self.queryBlock) {
            let rows = start..<min(length, start + Self.queryBlock)
            let visible = rows.upperBound
            let first = (segment.firstRow + start) * layout.queryStride + head * width
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
                let token = segment.firstRow + row
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

/// Some query rows of one sequence, for the heads that share one key-value head.
private struct AttentionTask {
    let segment: Int
    let rows: Range<Int>
    let group: Int
}

private struct AttentionWork {
    /// Keys and values of consecutive positions that lie together.
    struct Part {
        let positions: Range<Int>
        let keys: CachedRows
        let values: CachedRows
    }

    let task: AttentionTask
    let segment: AttentionLayout.Segment
    let keys: CachedRows
    let values: CachedRows
    let result: AttentionResult
}

/// One head's keys or values of a sequence: rows of a cache, or of the projections themselves.
private struct CachedRows {
    let address: UnsafeMutableRawPointer
    let rowBytes: Int
    let dtype: DType
    let width: Int

    init(
        _ cache: Tensor?, new: Tensor, segment: AttentionLayout.Segment, group: Int, layout: AttentionLayout
    ) {
        width = layout.headWidth
        if let cache {
            dtype = cache.dtype
            rowBytes = cache.rowByteCount
            let capacity = cache.rowCount / (layout.heads / layout.headsPerKey)
            address = cache.address + group * capacity * rowBytes
        } else {
            dtype = .float32
            rowBytes = layout.keyStride * 4
            address = new.address + segment.firstRow * rowBytes + group * width * 4
        }
    }

    func kernels(_ instructionSet: Kernels) -> monet_row_kernels? { instructionSet.rows(dtype) }

    /// Rows of some positions as float32, copied only if they are stored in another type.
    func operand(_ positions: Range<Int>, backend: CPUBackend) -> (operand: MatrixOperand, copy: Tensor?) {
        let start = address + positions.lowerBound * rowBytes
        guard dtype != .float32, let rows = kernels(backend.instructionSet) else {
            return (MatrixOperand(start, stride: rowBytes / 4), nil)
        }
        let copy = Tensor(uninitialized: [positions.count, width])
        for row in 0..<positions.count {
            rows.widen(copy.pointer + row * width, start + row * rowBytes, 0, width, width)
        }
        return (MatrixOperand(copy), copy)
    }
}
