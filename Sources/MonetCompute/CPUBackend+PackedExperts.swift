import CMonetKernels
import Foundation

// Inference from packed weights. What is read are the selected experts' rows alone; for a few tokens
// they are widened in registers, for many once per expert.

extension CPUBackend {
    public func packedExperts(_ x: Tensor, routing: ExpertRouting, weights: PackedExperts) throws -> Tensor {
        let selection = selection(routing)
        let (left, right) = (selection.left, selection.right)
        let output = Tensor(zeros: x.shape)
        let width = x.columnCount
        switch weights.decomposition {
        case .horizontal(let up, let down):
            try check([up], [down], width: width, outputs: width, left)
            let hidden = hiddenUnits(x, [(up, left)])[0]
            let units = hidden.columnCount
            let coefficients = Tensor(zeros: [right.entryCount, units + 1])
            mixEntries(
                hidden, stride: units, selection, .leftToRight, into: coefficients, at: 0, stride: units + 1)
            setSums(selection.rightSums, in: coefficients)
            project([PackedSide(down, right, coefficients, output, column: 0)], width: width)
        case .vertical(let leftUp, let rightUp, let upper, let lower):
            let half = width / 2
            try check([leftUp, rightUp], [upper, lower], width: width, outputs: half, left)
            let hidden = hiddenUnits(x, [(leftUp, left), (rightUp, right)])
            let (a, e) = (hidden[0], hidden[1])
            let units = a.columnCount
            let columns = 2 * units + 1
            let above = Tensor(zeros: [left.entryCount, columns])
            let below = Tensor(zeros: [right.entryCount, columns])
            setWeighted(a, by: selection.leftSums, in: above, at: 0)
            mixEntries(e, stride: units, selection, .rightToLeft, into: above, at: units, stride: columns)
            setSums(selection.leftSums, in: above)
            mixEntries(a, stride: units, selection, .leftToRight, into: below, at: 0, stride: columns)
            setWeighted(e, by: selection.rightSums, in: below, at: units)
            setSums(selection.rightSums, in: below)
            project(
                [
                    PackedSide(upper, left, above, output, column: 0),
                    PackedSide(lower, right, below, output, column: half),
                ], width: half)
        }
        return output
    }

    private func check(
        _ ups: [PackedExperts.UpProjection], _ downs: [PackedExperts.DownProjection], width: Int, outputs: Int,
        _ selection: ExpertSelection
    ) throws {
        let experts = selection.experts
        for up in ups {
            guard up.weight.shape.count == 2, up.weight.columnCount == width, up.weight.dtype.isReal,
                up.weight.rowCount % experts == 0, up.bias.count == up.weight.rowCount
            else {
                throw ComputeError.shapeMismatch(
                    operation: "packed experts", expected: "up-projection [\(experts) · m, \(width)] with a bias",
                    found: "\(up.weight.shape) and \(up.bias.shape)")
            }
        }
        let rows = downs.count * ups[0].weight.rowCount
        for down in downs {
            guard down.weight.shape == [rows, outputs], down.weight.dtype.isReal,
                down.bias.shape == [experts, outputs]
            else {
                throw ComputeError.shapeMismatch(
                    operation: "packed experts",
                    expected: "down-projection [\(rows), \(outputs)] with a bias [\(experts), \(outputs)]",
                    found: "\(down.weight.shape) and \(down.bias.shape)")
            }
        }
    }

    // MARK: Up-projection

    /// σ(U x + b) of every entry of each side, `[entries, units]`.
    private func hiddenUnits(
        _ x: Tensor, _ sides: [(up: PackedExperts.UpProjection, selection: ExpertSelection)]
    ) -> [Tensor] {
        let columns = x.columnCount
        let isSmall = x.rowCount <= Self.fewRows
        let rows =
            isSmall ? x : paddedRows(x.pointer, rows: x.rowCount, columns: columns, stride: columns)
        let hidden = sides.map { up, selection in
            Tensor(uninitialized: [selection.entryCount, up.weight.rowCount / selection.experts])
        }
        let tasks = sides.indices.flatMap { side in sides[side].selection.occupied.map { (side, Int($0)) } }
        // A chunk is about 32K weights: enough to outweigh taking it, few enough to balance.
        let taskWeights = hidden[0].columnCount * columns
        pool.forEachRange(of: tasks.count, minimum: max(1, (1 << 15) / max(1, taskWeights)), perThread: 8) {
            range, _ in
            for (side, expert) in tasks[range] {
                let (up, selection) = sides[side]
                let units = hidden[side].columnCount
                let entries = selection.offsets[expert]..<selection.offsets[expert + 1]
                let out = hidden[side].pointer + entries.lowerBound * units
                dot(
                    out, stride: units, rows, selection.rows + entries.lowerBound, entries.count, up.weight,
                    rows: (expert * units)..<((expert + 1) * units))
                let bias = Tensor(uninitialized: [units])
                up.bias.read(into: bias.pointer, from: expert * units, count: units)
                for entry in 0..<entries.count {
                    kernels.squared_relu(out + entry * units, bias.pointer, units)
                }
            }
        }
        return hidden
    }

    /// Dot products of gathered rows with some rows of weights.
    private func dot(
        _ out: UnsafeMutablePointer<Float>, stride: Int, _ x: Tensor, _ tokens: UnsafePointer<Int32>,
        _ count: Int, _ weight: Tensor, rows: Range<Int>
    ) {
        let columns = weight.columnCount
        if count <= Self.fewRows, let format = instructionSet.rows(weight.dtype) {
            let rowBytes = weight.rowByteCount
            format.dot(
                out, stride, x.pointer, x.columnCount, tokens, count, weight.address + rows.lowerBound * rowBytes,
                rowBytes, rows.count, columns)
        } else {
            let wide = widenedRows(weight, rows)
            kernels.gathered_dot(
                out, stride, x.pointer, x.columnCount, tokens, count, wide.pointer, columns, rows.count, columns)
        }
    }

    /// Some rows as float32; the rows themselves if they are.
    private func widenedRows(_ weight: Tensor, _ rows: Range<Int>) -> Tensor {
        if weight.dtype == .float32 { return weight.slice(rows) }
        let wide = Tensor(uninitialized: [rows.count, weight.columnCount])
        weight.read(into: wide.pointer, from: rows.lowerBound * weight.columnCount, count: wide.count)
        return wide
    }

    // MARK: Down-projection

    /// Adds coefficients · weights of every entry to its token's row.
    private func project(_ sides: [PackedSide], width: Int) {
        let tokens = sides[0].output.rowCount
        if tokens <= Self.fewRows {
            projectFew(sides, width: width, tokens: tokens)
        } else {
            for side in sides { projectMany(side, width: width, tokens: tokens) }
        }
    }

    /// Each thread sums its share of the experts for all tokens; the shares are then added in order.
    private func projectFew(_ sides: [PackedSide], width: Int, tokens: Int) {
        let parts = pool.threadCount
        let partial = Tensor(zeros: [sides.count * parts, tokens, width])
        pool.parallel(chunks: sides.count * parts) { chunk in
            let side = sides[chunk / parts]
            let selection = side.selection
            let sums = partial.pointer + chunk * tokens * width
            let (part, rows) = (chunk % parts, side.coefficients.columnCount - 1)
            guard let format = instructionSet.rows(side.down.weight.dtype),
                let biasFormat = instructionSet.rows(side.down.bias.dtype)
            else { return }
            let (rowBytes, biasBytes) = (side.down.weight.rowByteCount, side.down.bias.rowByteCount)
            let count = selection.occupied.count
            for place in (count * part / parts)..<(count * (part + 1) / parts) {
                let expert = Int(selection.occupied[place])
                let first = selection.offsets[expert]
                let entryCount = selection.offsets[expert + 1] - first
                let coefficients = side.coefficients.pointer + first * (rows + 1)
                format.accumulate(
                    sums, width, selection.rows + first, entryCount, coefficients, rows + 1,
                    side.down.weight.address + expert * rows * rowBytes, rowBytes, rows, 0, width, width)
                biasFormat.accumulate(
                    sums, width, selection.rows + first, entryCount, coefficients + rows, rows + 1,
                    side.down.bias.address + expert * biasBytes, biasBytes, 1, 0, width, width)
            }
        }
        for (index, side) in sides.enumerated() {
            for part in 0..<parts {
                let sums = partial.pointer + (index * parts + part) * tokens * width
                for token in 0..<tokens {
                    let out = side.output.pointer + token * side.output.columnCount + side.column
                    kernels.add(out, out, sums + token * width, width)
                }
            }
        }
    }

    /// Each thread sums all experts for its tokens, in blocks of columns whose sums stay in the cache.
    private func projectMany(_ side: PackedSide, width: Int, tokens: Int) {
        let selection = side.selection
        let rows = side.coefficients.columnCount
        let block = min(512, (tokens + pool.threadCount - 1) / pool.threadCount)
        let panel = min(width, max(64, (1 << 16) / block / 64 * 64))
        let panelStride = panel + 16
        pool.parallel(chunks: (tokens + block - 1) / block) { index in
            let range = (index * block)..<min(tokens, (index + 1) * block)
            let local = Tensor(uninitialized: [selection.entryCount], dtype: .int32)
            let localRows = local.address.assumingMemoryBound(to: Int32.self)
            let entries = selection.occupied.map { selection.entries(of: Int($0), in: range) }
            for range2 in entries {
                for entry in range2 { localRows[entry] = selection.rows[entry] - Int32(range.lowerBound) }
            }
            let sums = Tensor(uninitialized: [range.count, panelStride])
            let wide = Tensor(uninitialized: [rows, panelStride])
            for first in stride(from: 0, to: width, by: panel) {
                let count = min(panel, width - first)
                memset(sums.address, 0, sums.byteCount)
                for (place, expert) in selection.occupied.enumerated() where !entries[place].isEmpty {
                    let expert = Int(expert)
                    for row in 0..<(rows - 1) {
                        side.down.weight.readRow(
                            expert * (rows - 1) + row, columns: first..<(first + count),
                            into: wide.pointer + row * panelStride)
                    }
                    side.down.bias.readRow(
                        expert, columns: first..<(first + count), into: wide.pointer + (rows - 1) * panelStride)
                    kernels.scatter_add(
                        sums.pointer, panelStride, localRows + entries[place].lowerBound, entries[place].count,
                        side.coefficients.pointer + entries[place].lowerBound * rows, rows, wide.pointer,
                        panelStride, rows, count)
                }
                for (place, token) in range.enumerated() {
                    memcpy(
                        side.output.pointer + token * side.output.columnCount + side.column + first,
                        sums.pointer + place * panelStride, count * 4)
                }
            }
        }
    }
}

/// What one side contributes to the output: columns from `column` on.
private struct PackedSide {
    let down: PackedExperts.DownProjection
    let selection: ExpertSelection
    /// `[entries, rows + 1]`, the output bias's last.
    let coefficients: Tensor
    let output: Tensor
    let column: Int

    init(
        _ down: PackedExperts.DownProjection, _ selection: ExpertSelection, _ coefficients: Tensor,
        _ output: Tensor, column: Int
    ) {
        self.down = down
        self.selection = selection
        self.coefficients = coefficients
        self.output = output
        self.column = column
    }
}
