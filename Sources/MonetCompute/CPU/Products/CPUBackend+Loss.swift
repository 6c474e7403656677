import CMonetKernels
import Foundation

extension CPUBackend {
    /// Tokens whose logits are in memory at a time.
    private static var lossRows: Int { 256 }

    public func crossEntropy(
        hidden: Tensor, weight: Tensor, targets: [Int32], scale: Float, gradient: LinearGradient?
    ) throws -> Tensor {
        try requireFloat32(hidden, "cross entropy")
        try requireHost(weight, "cross entropy")
        let (width, vocabulary) = (hidden.columnCount, weight.shape[0])
        try requireShape(weight, [vocabulary, width], "cross entropy head")
        guard targets.count == hidden.rowCount else {
            throw ComputeError.shapeMismatch(
                operation: "cross entropy", expected: "\(hidden.rowCount) targets", found: "\(targets.count)")
        }
        if let bad = targets.first(where: { $0 >= Int32(vocabulary) }) {
            throw ComputeError.indexOutOfRange(
                operation: "cross entropy target", index: Int(bad), limit: vocabulary)
        }
        if let x = gradient?.x { try requireFloat32([x], hidden.shape, "cross entropy's gradient") }
        let losses = Tensor(zeros: [targets.count])
        for start in stride(from: 0, to: targets.count, by: Self.lossRows) {
            let rows = start..<min(targets.count, start + Self.lossRows)
            let block = hidden.slice(rows)
            let logits = Tensor(uninitialized: [rows.count, vocabulary])
            try product(block, weight, into: logits.pointer, stride: vocabulary, accumulate: false)
            pool.forEachRange(of: rows.count, minimum: 4) { range, _ in
                for row in range {
                    let line = logits.pointer + row * vocabulary
                    let target = Int(targets[start + row])
                    if target < 0 {
                        if gradient != nil { memset(line, 0, vocabulary * 4) }
                        continue
                    }
                    let logit = line[target]
                    losses.pointer[start + row] = kernels.softmax(line, 1, vocabulary) - logit
                    if gradient != nil {
                        line[target] -= 1
                        kernels.scale(line, scale, line, vocabulary)
                    }
                }
            }
            if let gradient {
                try linearGradient(
                    logits, x: block, weight: weight,
                    into: LinearGradient(x: gradient.x?.slice(rows), weight: gradient.weight, bias: nil))
            }
        }
        return losses
    }
}
