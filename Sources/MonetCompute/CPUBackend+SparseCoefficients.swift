import CMonetKernels

// Each entry's coefficients for the rows of its expert's down-projection: hidden units weighted by the
// routing probability, the other side's mixed in (equation 12), and the weight of the output bias.

extension CPUBackend {
    /// Puts each entry's weight into the last column, the output bias's.
    func setSums(_ sums: Tensor, in coefficients: Tensor) {
        let rows = coefficients.columnCount
        for entry in 0..<sums.count { coefficients.pointer[entry * rows + rows - 1] = sums.pointer[entry] }
    }

    /// Puts each entry's hidden units times its weight into some columns.
    func setWeighted(_ hidden: Tensor, by sums: Tensor, in coefficients: Tensor, at column: Int) {
        let (units, rows) = (hidden.columnCount, coefficients.columnCount)
        pool.forEachRange(of: sums.count, minimum: 512) { range, _ in
            for entry in range {
                kernels.scale(
                    coefficients.pointer + entry * rows + column, sums.pointer[entry],
                    hidden.pointer + entry * units, units)
            }
        }
    }

    /// Gradient of `setWeighted` and `setSums`: adds to the hidden units' and returns the sums'.
    func weightedGradient(
        _ dCoefficients: Tensor, at column: Int, _ hidden: Tensor, by sums: Tensor, into dHidden: Tensor
    ) -> Tensor {
        let (rows, units) = (dCoefficients.columnCount, hidden.columnCount)
        let dSums = Tensor(uninitialized: [sums.count])
        pool.forEachRange(of: sums.count, minimum: 512) { range, _ in
            for entry in range {
                let d = dCoefficients.pointer + entry * rows
                dSums.pointer[entry] =
                    d[rows - 1] + kernels.dot(d + column, hidden.pointer + entry * units, units)
                kernels.axpy(
                    dHidden.pointer + entry * units, sums.pointer[entry], d + column, units)
            }
        }
        return dSums
    }

    func copyColumn(_ source: Tensor, _ column: Int, into target: Tensor) {
        for row in 0..<target.count {
            target.pointer[row] = source.pointer[row * source.columnCount + column]
        }
    }

    /// Equation 12 on entries: one side's hidden units into columns of the other's coefficients.
    func mixEntries(
        _ source: Tensor, stride: Int, _ selection: RoutedSelection, _ direction: MixDirection,
        into destination: Tensor, at column: Int, stride destinationStride: Int
    ) {
        let (from, to) = direction.ends(selection)
        pool.forEachRange(of: from.tokens, minimum: 2) { range, _ in
            let scratch = Tensor(uninitialized: [stride])
            for token in range {
                for head in 0..<from.heads {
                    let (sources, targets) = (
                        from.list(token: token, head: head), to.list(token: token, head: head)
                    )
                    if let strengths = selection.strengths(token: token, head: head) {
                        let steps = direction.steps(from: sources.count, to: targets.count)
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

    func mixGradient(
        _ dCoefficients: Tensor, at column: Int, source: Tensor, _ selection: RoutedSelection,
        _ direction: MixDirection, into dSource: Tensor, gradient: ExpertGradient, width: Int
    ) {
        let (from, to) = direction.ends(selection)
        let (fromGradient, toGradient) =
            direction == .leftToRight ? (gradient.left, gradient.right) : (gradient.right, gradient.left)
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
                        let steps = direction.steps(from: sources.count, to: targets.count)
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

/// Which side's activations are mixed into the other's experts.
enum MixDirection {
    case leftToRight
    case rightToLeft

    func ends(_ selection: RoutedSelection) -> (from: ExpertSelection, to: ExpertSelection) {
        self == .leftToRight ? (selection.left, selection.right) : (selection.right, selection.left)
    }

    /// Steps through the strengths of a head, `[left count, right count]`.
    func steps(from: Int, to: Int) -> (from: Int, to: Int) {
        self == .leftToRight ? (to, 1) : (1, from)
    }
}
