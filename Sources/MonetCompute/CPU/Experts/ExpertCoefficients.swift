import CMonetKernels

// Each entry's coefficients for the rows of its expert's down-projection: its hidden units weighted by the
// routing probability, the other side's mixed hidden units (equation 12), and the weight of the output bias.

extension CPUBackend {
    /// The coefficients of every projection of a plan, `[entries of its side, sources · units + 1]`: each
    /// source's hidden units weighted or mixed, and last the weight of the output bias.
    func coefficients(_ plan: ExpertPlan, _ hidden: [Tensor], _ selection: RoutedSelection) -> [Tensor] {
        plan.projections.map { projection in
            let (own, sums) = selection.side(projection.side)
            let units = hidden[0].columnCount
            let rows = projection.sources.count * units + 1
            let result = Tensor(zeros: [own.entryCount, rows])
            for (index, source) in projection.sources.enumerated() {
                let values = hidden[plan.place(of: source)]
                if projection.mixes(source) {
                    mixEntries(
                        values, stride: units, selection, from: source, into: result, at: index * units,
                        stride: rows)
                } else {
                    setWeighted(values, by: sums, in: result, at: index * units)
                }
            }
            setSums(sums, in: result)
            return result
        }
    }

    /// Gradient of `coefficients`: adds to the gradients of the hidden units and of the probabilities.
    func coefficientGradients(
        _ plan: ExpertPlan, _ dCoefficients: [Tensor], _ hidden: [Tensor], _ selection: RoutedSelection,
        into dHidden: [Tensor], _ gradient: ExpertGradient
    ) {
        let units = hidden[0].columnCount
        var dSums: [ExpertSide: Tensor] = [:]
        for (projection, d) in zip(plan.projections, dCoefficients) {
            let total = column(d, d.columnCount - 1)
            for (index, source) in projection.sources.enumerated() where !projection.mixes(source) {
                let place = plan.place(of: source)
                addWeightedGradient(
                    d, at: index * units, hidden[place], by: selection.side(source).sums,
                    into: dHidden[place], sums: total)
            }
            if let earlier = dSums[projection.side] {
                kernels.add(total.pointer, total.pointer, earlier.pointer, total.count)
            }
            dSums[projection.side] = total
        }
        for (projection, d) in zip(plan.projections, dCoefficients) {
            for (index, source) in projection.sources.enumerated() where projection.mixes(source) {
                let place = plan.place(of: source)
                mixGradient(
                    d, at: index * units, source: hidden[place], selection, from: source,
                    into: dHidden[place], gradient: gradient, width: units)
            }
        }
        selection.spread(dLeft: dSums[.left], dRight: dSums[.right], into: gradient, pool: pool)
    }

    /// Writes each entry's weight to the last column, which belongs to the output bias.
    private func setSums(_ sums: Tensor, in coefficients: Tensor) {
        let rows = coefficients.columnCount
        for entry in 0..<sums.count { coefficients.pointer[entry * rows + rows - 1] = sums.pointer[entry] }
    }

    /// Writes each entry's hidden units times its weight to some columns.
    private func setWeighted(_ hidden: Tensor, by sums: Tensor, in coefficients: Tensor, at column: Int) {
        let (units, rows) = (hidden.columnCount, coefficients.columnCount)
        pool.forEachRange(of: sums.count, minimum: 512) { range, _ in
            for entry in range {
                kernels.scale(
                    coefficients.pointer + entry * rows + column, sums.pointer[entry],
                    hidden.pointer + entry * units, units)
            }
        }
    }

    /// Gradient of `setWeighted`: adds to the gradients of the hidden units and of the sums.
    private func addWeightedGradient(
        _ dCoefficients: Tensor, at column: Int, _ hidden: Tensor, by sums: Tensor, into dHidden: Tensor,
        sums dSums: Tensor
    ) {
        let (rows, units) = (dCoefficients.columnCount, hidden.columnCount)
        pool.forEachRange(of: sums.count, minimum: 512) { range, _ in
            for entry in range {
                let d = dCoefficients.pointer + entry * rows + column
                dSums.pointer[entry] += kernels.dot(d, hidden.pointer + entry * units, units)
                kernels.axpy(dHidden.pointer + entry * units, sums.pointer[entry], d, units)
            }
        }
    }

    private func column(_ source: Tensor, _ column: Int) -> Tensor {
        let result = Tensor(uninitialized: [source.rowCount])
        for row in 0..<result.count {
            result.pointer[row] = source.pointer[row * source.columnCount + column]
        }
        return result
    }

    /// Equation 12 on entries: mixes one side's hidden units into columns of the other's coefficients.
    private func mixEntries(
        _ source: Tensor, stride: Int, _ selection: RoutedSelection, from side: ExpertSide,
        into destination: Tensor, at column: Int, stride destinationStride: Int
    ) {
        let (from, to) = (selection.side(side).selection, selection.side(side.other).selection)
        pool.forEachRange(of: from.tokens, minimum: 2) { range, _ in
            let scratch = Tensor(uninitialized: [stride])
            for token in range {
                for head in 0..<from.heads {
                    let (sources, targets) = (
                        from.list(token: token, head: head), to.list(token: token, head: head)
                    )
                    if let strengths = selection.strengths(token: token, head: head) {
                        let steps = side.steps(from: sources.count, to: targets.count)
                        kernels.mix_pairs(
                            destination.pointer + column, destinationStride, source.pointer, stride, sources,
                            targets, strengths, steps.from, steps.to, stride)
                    } else {
                        kernels.mix_entries(
                            destination.pointer + column, destinationStride, source.pointer, stride, sources,
                            targets, stride, scratch.pointer)
                    }
                }
            }
        }
    }

    private func mixGradient(
        _ dCoefficients: Tensor, at column: Int, source: Tensor, _ selection: RoutedSelection,
        from side: ExpertSide, into dSource: Tensor, gradient: ExpertGradient, width: Int
    ) {
        let (from, to) = (selection.side(side).selection, selection.side(side.other).selection)
        let (fromGradient, toGradient) = (gradient[side], gradient[side.other])
        let experts = from.experts
        pool.forEachRange(of: from.tokens, minimum: 16) { range, _ in
            let scratch = Tensor(uninitialized: [2 * width])
            for token in range {
                for head in 0..<from.heads {
                    let row = (token * from.heads + head) * experts
                    let (sources, targets) = (
                        from.list(token: token, head: head), to.list(token: token, head: head)
                    )
                    if let strengths = selection.strengths(token: token, head: head) {
                        let steps = side.steps(from: sources.count, to: targets.count)
                        kernels.mix_pairs_gradient(
                            dSource.pointer, fromGradient.pointer + row, toGradient.pointer + row,
                            dCoefficients.pointer + column, dCoefficients.columnCount, source.pointer, width,
                            sources, targets, strengths, steps.from, steps.to, width)
                    } else {
                        kernels.mix_entries_gradient(
                            dSource.pointer, fromGradient.pointer + row, toGradient.pointer + row,
                            dCoefficients.pointer + column, dCoefficients.columnCount, source.pointer, width,
                            sources, targets, width, scratch.pointer)
                    }
                }
            }
        }
    }
}

extension ExpertSide {
    /// Strides through the strengths of a head, `[left count, right count]`, for units mixed from this side.
    fileprivate func steps(from: Int, to: Int) -> (from: Int, to: Int) {
        self == .left ? (to, 1) : (1, from)
    }
}
