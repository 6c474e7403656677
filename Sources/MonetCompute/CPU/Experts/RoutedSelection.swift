import CMonetKernels

/// Both sides' selections, adjusted by the strengths of single experts.
struct RoutedSelection: Sendable {
    let left: ExpertSelection
    let right: ExpertSelection
    /// Weight of each entry in its side's own terms, `[entries]`: Σ_h ĝ1_hi Σ_j s_ij ĝ2_hj on the left,
    /// where the inner sum is 1 if all strengths are.
    let leftSums: Tensor
    let rightSums: Tensor
    /// The offset of the strengths of a token's head, `[left, right]`; negative if all are 1.
    private let offsets: [Int]
    private let strengths: Tensor?

    init(_ routing: ExpertRouting, pool: WorkerPool) throws {
        left = ExpertSelection(routing.left, pool: pool)
        right = ExpertSelection(routing.right, pool: pool)
        guard routing.needsPairs else {
            (leftSums, rightSums, offsets, strengths) = (left.sums, right.sums, [], nil)
            return
        }
        let (heads, experts, tokens) = (left.heads, left.experts, left.tokens)
        // Tokens without strengths keep the sums of their probabilities.
        let (leftSums, rightSums) = (left.sums.copy(), right.sums.copy())
        let plain = RowStrengths(rows: 0..<tokens, factors: [])
        var partOfToken = [RowStrengths?](repeating: routing.isNormalized ? nil : plain, count: tokens)
        for token in routing.unnormalizedRows.joined() where token < tokens { partOfToken[token] = plain }
        for part in routing.strengths where part.factors.contains(where: { $0.count > 0 }) {
            guard part.rows.lowerBound >= 0, part.rows.upperBound <= tokens,
                part.factors.allSatisfy({ $0.units == experts * experts })
            else {
                throw ComputeError.shapeMismatch(
                    operation: "expert strengths",
                    expected: "\(experts * experts) experts, rows up to \(tokens)",
                    found: "\(part.factors.map(\.units)), rows \(part.rows)")
            }
            for token in part.rows { partOfToken[token] = part }
        }
        var offsets = [Int](repeating: -1, count: tokens * heads)
        var total = 0
        for token in 0..<tokens where partOfToken[token] != nil {
            for head in 0..<heads {
                offsets[token * heads + head] = total
                total += left.count(token: token, head: head) * right.count(token: token, head: head)
            }
        }
        let values = Tensor(uninitialized: [total])
        let (lefts, rights) = (left, right)
        offsets.withUnsafeMutableBufferPointer { offsets in
            // All threads only read the offsets.
            nonisolated(unsafe) let offsets = offsets
            // An entry belongs to one token, so tokens can be divided among threads.
            pool.forEachRange(of: tokens, minimum: 8) { range, _ in
                for token in range {
                    guard let given = partOfToken[token] else { continue }
                    let lists = (0..<heads).map {
                        (lefts.list(token: token, head: $0), rights.list(token: token, head: $0))
                    }
                    for (from, to) in lists {
                        for i in 0..<from.count { leftSums.pointer[Int(from.entry[i])] = 0 }
                        for j in 0..<to.count { rightSums.pointer[Int(to.entry[j])] = 0 }
                    }
                    for (head, (from, to)) in lists.enumerated() {
                        let out = values.pointer + offsets[token * heads + head]
                        var isTouched = false
                        for i in 0..<from.count {
                            let row = Int(from.expert[i]) * experts
                            for j in 0..<to.count {
                                let index = row + Int(to.expert[j])
                                let touched = given.isTouched(index)
                                isTouched = isTouched || touched
                                let strength = touched ? given[index] : 1
                                out[i * to.count + j] = strength
                                let product = strength * from.value[i] * to.value[j]
                                leftSums.pointer[Int(from.entry[i])] += product
                                rightSums.pointer[Int(to.entry[j])] += product
                            }
                        }
                        if !isTouched { offsets[token * heads + head] = -1 }
                    }
                }
            }
        }
        self.leftSums = leftSums
        self.rightSums = rightSums
        self.offsets = offsets
        strengths = values
    }

    /// One side's selection, and the weight of each of its entries.
    func side(_ side: ExpertSide) -> (selection: ExpertSelection, sums: Tensor) {
        side == .left ? (left, leftSums) : (right, rightSums)
    }

    /// Whether any strength differs from 1.
    var hasStrengths: Bool { strengths != nil }

    /// Strengths of a token's head, `[left count, right count]`; nil if all are 1.
    func strengths(token: Int, head: Int) -> UnsafeMutablePointer<Float>? {
        guard let strengths else { return nil }
        let offset = offsets[token * left.heads + head]
        return offset < 0 ? nil : strengths.pointer + offset
    }

    /// Adds the gradients of the sums `[entries]` to those of the probabilities.
    func spread(dLeft: Tensor?, dRight: Tensor?, into gradient: ExpertGradient, pool: WorkerPool) {
        guard hasStrengths else {
            if let dLeft { left.spread(dLeft.pointer, into: gradient.left, pool: pool) }
            if let dRight { right.spread(dRight.pointer, into: gradient.right, pool: pool) }
            return
        }
        // Both sums are sums of s_ij ĝ1_hi ĝ2_hj over the pairs of an entry.
        let experts = left.experts
        pool.forEachRange(of: left.tokens, minimum: 16) { range, _ in
            for token in range {
                for head in 0..<left.heads {
                    let row = (token * left.heads + head) * experts
                    let (lefts, rights) = (
                        left.list(token: token, head: head), right.list(token: token, head: head)
                    )
                    let strengths = strengths(token: token, head: head)
                    for i in 0..<lefts.count {
                        for j in 0..<rights.count {
                            let strength = strengths?[i * rights.count + j] ?? 1
                            let d =
                                strength
                                * ((dLeft?.pointer[Int(lefts.entry[i])] ?? 0)
                                    + (dRight?.pointer[Int(rights.entry[j])] ?? 0))
                            gradient.left.pointer[row + Int(lefts.expert[i])] += d * rights.value[j]
                            gradient.right.pointer[row + Int(rights.expert[j])] += d * lefts.value[i]
                        }
                    }
                }
            }
        }
    }
}

extension ExpertRouting {
    /// Whether sums over pairs must be computed in full: some token has a strength other than 1, or
    /// probabilities may not sum to 1.
    var needsPairs: Bool {
        !isNormalized || !unnormalizedRows.isEmpty
            || strengths.contains { $0.factors.contains { $0.count > 0 } }
    }
}
