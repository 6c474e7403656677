import CMonetKernels
import Foundation

// Inference from packed weights. Only the rows of selected experts are read; for a few tokens they are
// widened in registers, for many tokens once per expert.

extension CPUBackend {
    public func experts(_ x: Tensor, routing: ExpertRouting, prepared: PreparedWeights) throws -> Tensor {
        guard let packed = prepared.content as? PackedExperts else {
            throw ComputeError.foreignPreparation(operation: "experts", device: name)
        }
        let (weights, plan) = (packed.weights, packed.weights.plan)
        let shape = try ExpertShape(x, routing, packed.extents, self)
        let selection = try selection(routing)
        let hidden = try hiddenUnits(
            x, zip(plan.hidden, weights.up).map { ($1, selection.side($0).selection) })
        let coefficients = coefficients(plan, hidden, selection)
        let output = Tensor(zeros: x.shape)
        try project(
            try plan.projections.indices.map { place in
                let (rows, bias) = try packed.down(place)
                return try PackedSide(
                    rows, bias, selection.side(plan.projections[place].side).selection, coefficients[place],
                    output, column: place * shape.part, instructionSet)
            }, width: shape.part)
        return output
    }

    /// Up to this many tokens, reading or widening the weights costs more than the products.
    private var fewTokens: Int {
        if isBatchInvariant { return .max }
        return roundsManyInKernels ? policy.roundedRowsInRegisters : policy.rowsInRegisters
    }

    // MARK: Up-projection

    /// σ(U x + b) of every entry of each side, `[entries, units]`.
    private func hiddenUnits(
        _ x: Tensor, _ sides: [(up: ExpertWeights<Tensor>.Up, selection: ExpertSelection)]
    ) throws -> [Tensor] {
        let columns = x.columnCount
        let isSmall = x.rowCount <= fewTokens
        // For few tokens, quantized rows keep their own products, because reading them dominates the cost.
        let rounds = sides.map {
            isSmall ? roundsInKernels && $0.up.weight.dtype == .bfloat16 : roundsManyInKernels
        }
        let rows =
            isSmall || rounds.allSatisfy { $0 }
            ? x : paddedRows(x.pointer, rows: x.rowCount, columns: columns, stride: columns)
        let hidden = sides.map { up, selection in
            Tensor(uninitialized: [selection.entryCount, up.weight.rowCount / selection.experts])
        }
        let formats = sides.indices.map { side -> monet_row_kernels? in
            let stored = sides[side].up.weight.dtype
            // For many tokens, 4-bit rows are widened, and activations need no rounding.
            let read = isSmall || stored != .int4Rows ? stored : .float32
            if isSmall { return rowKernels(read, rows: x.rowCount) }
            if rounds[side] { return kernels.rounded_bf16 }
            return read == .bfloat16 ? kernels.even_odd_bf16 : instructionSet.rows(read)
        }
        let activations = formats.map { format in
            format.map { RowActivations(rows, columns: columns, for: $0, pool: pool) }
        }
        let views = sides.indices.compactMap { side in
            RowsOfExperts(
                sides[side].up, sides[side].selection, hidden: hidden[side], activations: activations[side],
                format: formats[side], biasFormat: instructionSet.rows(sides[side].up.bias.dtype),
                rounds: rounds[side])
        }
        guard views.count == sides.count else {
            throw ComputeError.unsupportedDType(operation: "packed experts", dtype: sides[0].up.weight.dtype)
        }
        var tasks: [RowsOfExperts.Task] = []
        tasks.reserveCapacity(sides.reduce(0) { $0 + $1.selection.occupied.count })
        for (side, selection) in sides.map(\.selection).enumerated() {
            for expert in selection.occupied {
                let (first, end) = (selection.offsets[Int(expert)], selection.offsets[Int(expert) + 1])
                tasks.append(.init(side: side, expert: Int(expert), first: first, count: end - first))
            }
        }
        let squaredReLU = kernels.squared_relu
        let chunkTasks = max(1, policy.weightsPerThread / max(1, views[0].units * columns))
        pool.forEachRange(of: tasks.count, minimum: chunkTasks, perThread: 8) { range, _ in
            let bias = Tensor(uninitialized: [views.reduce(0) { max($0, $1.units) }])
            for place in range {
                let task = tasks[place]
                let view = views[task.side]
                let units = view.units
                let out = view.hidden + task.first * units
                let rowsOfExpert = (task.expert * units)..<((task.expert + 1) * units)
                // Among many tokens, an expert with few is treated like the rest: no rounded activations.
                let readsStored =
                    isSmall
                    || (!view.roundsActivations && (view.isBFloat16 || task.count <= policy.entriesAsStored))
                if readsStored || view.rounds {
                    let rounded =
                        view.rounds && !view.isBFloat16
                        ? roundedRows(sides[task.side].up.weight, rowsOfExpert) : nil
                    // The next selected expert is rarely adjacent, so its rows are prefetched explicitly.
                    let next = place + 1 < tasks.count && rounded == nil ? tasks[place + 1] : nil
                    view.format.dot(
                        out, units, view.activations, view.activationStride, view.tokens + task.first,
                        task.count,
                        rounded.map { UnsafeRawPointer($0.address) } ?? view.rows(of: task.expert),
                        rounded == nil ? view.rowBytes : 2 * columns, units, columns,
                        next.map { views[$0.side].rows(of: $0.expert) })
                } else {
                    let wide = widenedRows(sides[task.side].up.weight, rowsOfExpert)
                    kernels.gathered_dot(
                        out, units, rows.pointer, rows.columnCount, view.tokens + task.first, task.count,
                        wide.pointer, columns, units, columns)
                }
                view.widenBias(
                    bias.pointer, view.bias, rowsOfExpert.lowerBound, units, view.units * view.experts)
                for entry in 0..<task.count { squaredReLU(out + entry * units, bias.pointer, units) }
            }
        }
        withExtendedLifetime((sides, activations)) {}
        return hidden
    }

    /// Some rows as float32; the rows themselves if they already are.
    private func widenedRows(_ weight: Tensor, _ rows: Range<Int>) -> Tensor {
        if weight.dtype == .float32 { return weight.slice(rows) }
        let wide = Tensor(uninitialized: [rows.count, weight.columnCount])
        weight.read(
            into: wide.pointer, from: rows.lowerBound * weight.columnCount, count: wide.count,
            by: instructionSet)
        return wide
    }

    // MARK: Down-projection

    /// Adds coefficients · weights of every entry to its token's row.
    private func project(_ sides: [PackedSide], width: Int) throws {
        let tokens = sides[0].output.rowCount
        if tokens <= (isBatchInvariant ? policy.rowsInRegisters : fewTokens) {
            projectFew(sides, width: width, tokens: tokens)
        } else {
            for side in sides {
                // Otherwise a token's sums are in one piece: it belongs to one thread.
                let shares =
                    isBatchInvariant
                    ? self.shares(side.selection, sides: sides.count) : [side.selection.occupied.indices]
                projectMany(side, shares, width: width, tokens: tokens)
            }
        }
    }

    /// The shares of a side's experts that are summed separately and then added in order: indices of
    /// `selection.occupied`. A batch-invariant sum divides all experts, whichever a batch selects.
    private func shares(_ selection: ExpertSelection, sides: Int) -> [Range<Int>] {
        let occupied = selection.occupied
        if isBatchInvariant {
            let parts = max(1, Self.invariantShares / sides)
            let bounds = (0...parts).map { part in
                let first = selection.experts * part / parts
                return occupied.firstIndex { Int($0) >= first } ?? occupied.count
            }
            return zip(bounds, bounds.dropFirst()).map { $0..<$1 }
        }
        // Two shares per thread balance the load; every additional share costs a row of sums for each token.
        let parts = pool.shareCount == 1 ? 1 : max(1, 2 * pool.shareCount / sides)
        return (0..<parts).map { (occupied.count * $0 / parts)..<(occupied.count * ($0 + 1) / parts) }
    }

    /// Shares of all sides together in batch-invariant sums, the same for any number of threads.
    private static var invariantShares: Int { 8 }

    /// The experts are divided into shares, each of which one thread sums for all tokens; the shares are then
    /// added in order, so that the result does not depend on which thread summed which.
    private func projectFew(_ sides: [PackedSide], width: Int, tokens: Int) {
        let shares = sides.map { self.shares($0.selection, sides: sides.count) }
        let parts = shares[0].count
        let partial = Tensor(uninitialized: [sides.count * parts, tokens, width])
        pool.parallel(chunks: sides.count * parts) { chunk in
            let side = sides[chunk / parts]
            let selection = side.selection
            let sums = partial.pointer + chunk * tokens * width
            memset(sums, 0, tokens * width * 4)
            let (share, rows) = (shares[chunk / parts][chunk % parts], side.coefficients.columnCount - 1)
            let (format, biasFormat) = (side.format, side.biasFormat)
            let (rowBytes, biasBytes) = (side.rows.rowByteCount, side.bias.rowByteCount)
            let (weights, bias) = (side.rows.address, side.bias.address)
            let (tokensOfEntries, allCoefficients) = (selection.rows, side.coefficients.pointer)
            let count = selection.occupied.count
            for place in share {
                let expert = Int(selection.occupied[place])
                let first = selection.offsets[expert]
                let entryCount = selection.offsets[expert + 1] - first
                let coefficients = allCoefficients + first * (rows + 1)
                // The next selected expert is rarely adjacent, so its rows are prefetched explicitly.
                let next = place + 1 < count ? Int(selection.occupied[place + 1]) : nil
                format.accumulate(
                    sums, width, tokensOfEntries + first, entryCount, coefficients, rows + 1,
                    weights + expert * rows * rowBytes, rowBytes, rows, 0, width, width,
                    next.map { UnsafeRawPointer(weights + $0 * rows * rowBytes) })
                biasFormat.accumulate(
                    sums, width, tokensOfEntries + first, entryCount, coefficients + rows, rows + 1,
                    bias + expert * biasBytes, biasBytes, 1, 0, width, width,
                    next.map { UnsafeRawPointer(bias + $0 * biasBytes) })
            }
        }
        pool.forEachRange(of: tokens, minimum: 2) { range, _ in
            for (index, side) in sides.enumerated() {
                for token in range {
                    let out = side.output.pointer + token * side.output.columnCount + side.column
                    for part in 0..<parts {
                        let sums = partial.pointer + ((index * parts + part) * tokens + token) * width
                        kernels.add(out, out, sums, width)
                    }
                }
            }
        }
    }

    /// Tokens whose entries of an expert are summed at a time.
    private struct TokenBlock {
        let range: Range<Int>
        /// The entries of each occupied expert.
        let entries: [Range<Int>]
    }

    /// Each thread sums all experts for some columns of a block of tokens, whose sums stay in the cache. An expert's
    /// rows are widened once for a block, so blocks are long.
    private func projectMany(_ side: PackedSide, _ shares: [Range<Int>], width: Int, tokens: Int) {
        let selection = side.selection
        let rows = side.coefficients.columnCount
        let most = max(1, policy.tokensPerDownProjection)
        let blockCount = (tokens + most - 1) / most
        // The place of each entry's token in its block.
        let local = Tensor(uninitialized: [selection.entryCount], dtype: .int32)
        let places = local.address.assumingMemoryBound(to: Int32.self)
        let blocks = (0..<blockCount).map { index in
            let range = (tokens * index / blockCount)..<(tokens * (index + 1) / blockCount)
            let entries = selection.occupied.map { selection.entries(of: Int($0), in: range) }
            for own in entries {
                for entry in own { places[entry] = selection.rows[entry] - Int32(range.lowerBound) }
            }
            return TokenBlock(range: range, entries: entries)
        }
        let longest = blocks.reduce(1) { max($0, $1.range.count) }
        let share = (width + pool.shareCount - 1) / pool.shareCount
        let panel = min(width, max(64, min(share, (1 << 16) / longest) / 64 * 64))
        let panelStride = panel + 16
        let panels = (width + panel - 1) / panel
        let rounded =
            roundsManyInKernels && !isBatchInvariant
            ? RoundedDownProjection(
                rows: side.rows, bias: side.bias, coefficients: side.coefficients, instructionSet, pool: pool)
            : nil
        pool.parallel(chunks: blocks.count * panels) { chunk in
            let block = blocks[chunk / panels]
            let (range, entries) = (block.range, block.entries)
            let first = chunk % panels * panel
            let columns = first..<min(width, first + panel)
            let sums = Tensor(uninitialized: [range.count, panelStride])
            let wide = Tensor(uninitialized: rounded == nil ? [rows, panelStride] : [0, panelStride])
            let scratch = rounded?.scratch(columns: panel)
            for share in shares {
                memset(sums.address, 0, sums.byteCount)
                for place in share where !entries[place].isEmpty {
                    let (expert, rows) = (
                        Int(selection.occupied[place]), places + entries[place].lowerBound
                    )
                    if let rounded, let scratch {
                        rounded.add(
                            expert, entries[place], columns: columns, to: sums, rows: rows, scratch: scratch)
                    } else {
                        add(side, expert, entries[place], columns: columns, to: sums, rows: rows, wide: wide)
                    }
                }
                for (place, token) in range.enumerated() {
                    let out = side.output.pointer + token * side.output.columnCount + side.column + first
                    kernels.add(out, out, sums.pointer + place * panelStride, columns.count)
                }
            }
        }
        withExtendedLifetime(local) {}
    }

    /// Adds an expert's entries to the rows of `sums`, which are `columns` of the output, in float32.
    private func add(
        _ side: PackedSide, _ expert: Int, _ entries: Range<Int>, columns: Range<Int>, to sums: Tensor,
        rows tokens: UnsafePointer<Int32>, wide: Tensor
    ) {
        let (rows, stride) = (side.coefficients.columnCount, wide.columnCount)
        if isBatchInvariant, side.rows.dtype.isQuantized {
            // Scales are multiplied with the coefficients, as for few tokens.
            let (out, first) = (sums.pointer - columns.lowerBound, entries.lowerBound)
            let (rowBytes, biasBytes) = (side.rows.rowByteCount, side.bias.rowByteCount)
            side.format.accumulate(
                out, sums.columnCount, tokens, entries.count, side.coefficients.pointer + first * rows, rows,
                side.rows.address + expert * (rows - 1) * rowBytes, rowBytes, rows - 1, columns.lowerBound,
                columns.count, side.rows.columnCount, nil)
            side.biasFormat.accumulate(
                out, sums.columnCount, tokens, entries.count,
                side.coefficients.pointer + first * rows + rows - 1, rows,
                side.bias.address + expert * biasBytes, biasBytes, 1, columns.lowerBound, columns.count,
                side.bias.columnCount, nil)
            return
        }
        for row in 0..<(rows - 1) {
            side.rows.readRow(
                expert * (rows - 1) + row, columns: columns, into: wide.pointer + row * stride,
                by: instructionSet)
        }
        side.bias.readRow(
            expert, columns: columns, into: wide.pointer + (rows - 1) * stride, by: instructionSet)
        kernels.scatter_add(
            sums.pointer, sums.columnCount, tokens, entries.count,
            side.coefficients.pointer + entries.lowerBound * rows, rows, wide.pointer, stride, rows,
            columns.count)
    }
}

/// What one projection contributes to the output: columns from `column` on.
private struct PackedSide {
    /// `[E · (rows - 1), width]`.
    let rows: Tensor
    /// `[E, width]`.
    let bias: Tensor
    let format: monet_row_kernels
    let biasFormat: monet_row_kernels
    let selection: ExpertSelection
    /// `[entries, rows]`; the last row is the output bias's.
    let coefficients: Tensor
    let output: Tensor
    let column: Int

    init(
        _ rows: Tensor, _ bias: Tensor, _ selection: ExpertSelection, _ coefficients: Tensor,
        _ output: Tensor, column: Int, _ instructionSet: Kernels
    ) throws {
        guard let format = instructionSet.rows(rows.dtype), let biasFormat = instructionSet.rows(bias.dtype)
        else { throw ComputeError.unsupportedDType(operation: "packed experts", dtype: rows.dtype) }
        (self.rows, self.bias, self.format, self.biasFormat) = (rows, bias, format, biasFormat)
        self.selection = selection
        self.coefficients = coefficients
        self.output = output
        self.column = column
    }
}

/// One side's up-projection and entries as plain pointers: nothing to retain in the inner loops.
private struct RowsOfExperts {
    /// One expert and its entries.
    struct Task {
        let side: Int
        let expert: Int
        let first: Int
        let count: Int
    }

    let weights: UnsafeMutableRawPointer
    let isBFloat16: Bool
    /// Whether products with few rows of activations round the activations.
    let roundsActivations: Bool
    /// Whether operands are rounded to bfloat16, for any number of rows.
    let rounds: Bool
    let rowBytes: Int
    let units: Int
    let experts: Int
    let bias: UnsafeMutableRawPointer
    let widenBias: @convention(c) (UnsafeMutablePointer<Float>, UnsafeRawPointer, Int, Int, Int) -> Void
    let format: monet_row_kernels
    let activations: UnsafeMutableRawPointer
    let activationStride: Int
    let hidden: UnsafeMutablePointer<Float>
    let tokens: UnsafeMutablePointer<Int32>

    /// Nil if there are no products with these types.
    init?(
        _ up: ExpertWeights<Tensor>.Up, _ selection: ExpertSelection, hidden: Tensor,
        activations: RowActivations?, format: monet_row_kernels?, biasFormat: monet_row_kernels?, rounds: Bool
    ) {
        guard let activations, let format, let biasFormat else { return nil }
        weights = up.weight.address
        isBFloat16 = up.weight.dtype == .bfloat16
        roundsActivations = up.weight.dtype == .int4Rows
        self.rounds = rounds
        rowBytes = up.weight.rowByteCount
        units = hidden.columnCount
        experts = selection.experts
        bias = up.bias.address
        widenBias = biasFormat.widen
        self.format = format
        self.activations = activations.address
        activationStride = activations.stride
        self.hidden = hidden.pointer
        tokens = selection.rows
    }

    /// Where the rows of an expert begin.
    func rows(of expert: Int) -> UnsafeRawPointer { UnsafeRawPointer(weights + expert * units * rowBytes) }
}
