import CMonetKernels

/// Both sides' selections, with what strengths of single experts change about them.
struct RoutedSelection: Sendable {
    let left: ExpertSelection
    let right: ExpertSelection
    /// Weight of each entry in its side's own terms, `[entries]`: Σ_h ĝ1_hi Σ_j s_ij ĝ2_hj on the left,
    /// where the inner sum is 1 if all strengths are.
    let leftSums: Tensor
    let rightSums: Tensor
    /// Where the strengths of a token's head begin, `[left, right]`; negative where all are 1.
    private let offsets: [Int]
    private let strengths: Tensor?

    init(_ routing: ExpertRouting, pool: WorkerPool) {
        left = ExpertSelection(routing.left, pool: pool)
        right = ExpertSelection(routing.right, pool: pool)
        guard let given = routing.strengths, given.count > 0 else {
            (leftSums, rightSums, offsets, strengths) = (left.sums, right.sums, [], nil)
            return
        }
        let (heads, experts, tokens) = (left.heads, left.experts, left.tokens)
        let (leftSums, rightSums) = (
            Tensor(zeros: [left.entryCount]), Tensor(zeros: [right.entryCount])
        )
        var offsets = [Int](repeating: -1, count: tokens * heads)
        var total = 0
        for token in 0..<tokens {
            for head in 0..<heads {
                offsets[token * heads + head] = total
                total += left.count(token: token, head: head) * right.count(token: token, head: head)
            }
        }
        let values = Tensor(uninitialized: [total])
        let (lefts, rights) = (left, right)
        offsets.withUnsafeMutableBufferPointer { offsets in
            nonisolated(unsafe) let offsets = offsets
            // An entry belongs to one token, so that tokens can be shared out.
            pool.forEachRange(of: tokens, minimum: 8) { range, _ in
                for list in (range.lowerBound * heads)..<(range.upperBound * heads) {
                    let (from, to) = (
                        lefts.list(token: list / heads, head: list % heads),
                        rights.list(token: list / heads, head: list % heads)
                    )
                    let out = values.pointer + offsets[list]
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
                    if !isTouched { offsets[list] = -1 }
                }
            }
        }
        self.leftSums = leftSums
        self.rightSums = rightSums
        self.offsets = offsets
        strengths = values
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
