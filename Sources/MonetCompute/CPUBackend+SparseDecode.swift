import CMonetKernels
import Foundation

// One or a few tokens at a time: the weights' bytes are what costs, so only those of the selected
// experts are read, from the checkpoint's own layout.

extension CPUBackend {
    /// Up to this many tokens each reads its own experts' weights; more share them by expert.
    static var mostDecodedTokens: Int { 8 }
    /// Above this share of selected experts reading everything in order is as fast.
    private static var largestDecodedShare: Double { 0.5 }

    /// The experts that any head of each token selects, from probabilities summed over heads
    /// `[tokens, experts]`; nil where dense products are as good.
    func decodedExperts(_ sums: Tensor) -> [[Int32]]? {
        let (tokens, experts) = (sums.rowCount, sums.columnCount)
        guard expertExecution != .dense, tokens <= Self.mostDecodedTokens else { return nil }
        let lists = (0..<tokens).map { token in
            (0..<experts).compactMap { sums.pointer[token * experts + $0] != 0 ? Int32($0) : nil }
        }
        let selected = lists.reduce(0) { $0 + $1.count }
        return Double(selected) <= Self.largestDecodedShare * Double(tokens * experts) ? lists : nil
    }

    /// σ(U x + b) of the listed experts, `[tokens, E · units]` with zeros elsewhere.
    func decodedActivations(_ x: Tensor, _ u: Tensor, bias: Tensor, experts: Int, _ lists: [[Int32]])
        -> Tensor
    {
        let (columns, units) = (u.shape[0], u.shape[0] / experts)
        let hidden = Tensor(zeros: [x.rowCount, columns])
        let biasValues = widened(bias)
        let pairs = lists.enumerated().flatMap { token, list in list.map { (token, Int($0)) } }
        pool.forEachRange(of: pairs.count, minimum: max(1, (1 << 15) / max(1, units * x.columnCount))) {
            range, _ in
            for (token, expert) in pairs[range] {
                let rows = (expert * units)..<((expert + 1) * units)
                let out = hidden.pointer + token * columns + rows.lowerBound
                gemv(u, rows: rows, x: x.pointer + token * x.columnCount, into: out)
                kernels.squared_relu(out, biasValues.pointer + rows.lowerBound, units)
            }
        }
        return hidden
    }

    /// out (+)= V · mixed, where `mixed` is zero but for the listed experts' units.
    func decodedProduct(
        _ mixed: Tensor, _ v: Tensor, experts: Int, _ lists: [[Int32]], into out: UnsafeMutablePointer<Float>,
        stride: Int, accumulate: Bool
    ) {
        let (width, columns) = (v.shape[0], v.shape[1])
        let units = columns / experts
        for (token, list) in lists.enumerated() {
            let x = mixed.pointer + token * columns
            let target = out + token * stride
            pool.forEachRange(of: width, minimum: max(1, (1 << 14) / max(1, units * list.count))) {
                range, _ in
                let sums = Tensor(uninitialized: [range.count])
                let start = v.address + range.lowerBound * columns * v.dtype.byteCount
                switch v.dtype {
                case .bfloat16:
                    kernels.gemv_blocks_bf16(
                        sums.pointer, start.assumingMemoryBound(to: UInt16.self), columns, x, list,
                        list.count, units,
                        range.count)
                case .float16:
                    kernels.gemv_blocks_f16(
                        sums.pointer, start.assumingMemoryBound(to: UInt16.self), columns, x, list,
                        list.count, units,
                        range.count)
                default:
                    kernels.gemv_blocks_f32(
                        sums.pointer, start.assumingMemoryBound(to: Float.self), columns, x, list, list.count,
                        units,
                        range.count)
                }
                let place = target + range.lowerBound
                if accumulate {
                    kernels.add(place, place, sums.pointer, range.count)
                } else {
                    memcpy(place, sums.pointer, range.count * 4)
                }
            }
        }
    }
}
