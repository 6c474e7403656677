import Foundation
import MonetCompute

/// A second device, written against the public protocol alone: double precision, plain loops from the
/// definitions, storage that the host cannot address. Experts are summed pair by pair, with none of the
/// factorizations that the processor uses.
public struct ReferenceBackend: Backend {
    public let name = "reference"

    public init() {}

    // MARK: Access

    /// A tensor's elements and how they are shaped.
    func values(_ tensor: Tensor, _ operation: String = #function) throws -> Reference {
        guard let storage = tensor.storage as? ReferenceStorage else {
            throw ComputeError.foreignStorage(operation: operation, device: name)
        }
        let start = tensor.byteOffset / tensor.dtype.byteCount
        return Reference(storage[start..<(start + tensor.count)], shape: tensor.shape)
    }

    func made(_ values: Reference, dtype: DType = .float32) -> Tensor {
        Tensor(
            shape: values.shape, dtype: dtype, storage: ReferenceStorage(values.values, dtype: dtype))
    }

    func replace(_ tensor: Tensor, by values: [Double]) throws {
        guard let storage = tensor.storage as? ReferenceStorage, values.count == tensor.count else {
            throw ComputeError.foreignStorage(operation: "writing", device: name)
        }
        storage.replace(tensor.byteOffset / tensor.dtype.byteCount, by: values)
    }

    func add(_ new: [Double], into tensor: Tensor) throws {
        try replace(tensor, by: zip(values(tensor).values, new).map(+))
    }

    // MARK: Memory

    public func tensor(_ source: Tensor) throws -> Tensor {
        if source.storage is ReferenceStorage { return source }
        if source.dtype == .int64 || source.dtype == .int32 {
            return made(
                Reference(source.integers().map(Double.init), shape: source.shape), dtype: source.dtype)
        }
        return made(Reference(source))
    }

    public func empty(_ shape: [Int], dtype: DType) throws -> Tensor {
        // What is not written must not be read: it shows as no number.
        made(Reference([Double](repeating: .nan, count: shape.reduce(1, *)), shape: shape))
    }

    public func zeros(_ shape: [Int], dtype: DType) throws -> Tensor { made(Reference(zeros: shape)) }

    public func copy(_ source: Tensor, into target: Tensor) throws {
        try replace(target, by: values(source).values)
    }

    // MARK: Embedding and projections

    public func embed(_ ids: [Int32], table: Tensor) throws -> Tensor {
        let rows = try values(table)
        for id in ids where id < 0 || Int(id) >= rows.rows {
            throw ComputeError.indexOutOfRange(operation: "embedding", index: Int(id), limit: rows.rows)
        }
        return made(
            Reference(
                ids.flatMap { id in (0..<rows.columns).map { rows[Int(id), $0] } },
                shape: [ids.count, rows.columns]))
    }

    public func embedGradient(_ outputGradient: Tensor, ids: [Int32], into tableGradient: Tensor) throws {
        let d = try values(outputGradient)
        var table = try values(tableGradient)
        for (row, id) in ids.enumerated() {
            for column in 0..<d.columns { table[Int(id), column] += d[row, column] }
        }
        try replace(tableGradient, by: table.values)
    }

    public func linear(_ x: Tensor, weight: Tensor, bias: Tensor?) throws -> Tensor {
        let (x, weight) = (try values(x), try values(weight))
        guard weight.shape.count == 2, weight.columns == x.columns else {
            throw ComputeError.shapeMismatch(
                operation: "linear", expected: "[out, \(x.columns)]", found: "\(weight.shape)")
        }
        return made(ReferenceMath.linear(x, weight, try bias.map { try values($0) }))
    }

    public func linearGradient(
        _ outputGradient: Tensor, x: Tensor, weight: Tensor, into gradient: LinearGradient
    ) throws {
        let (d, x, w) = (try values(outputGradient), try values(x), try values(weight))
        if let target = gradient.x {
            var dx = Reference(zeros: x.shape)
            for row in 0..<x.rows {
                for out in 0..<w.rows where d[row, out] != 0 {
                    for column in 0..<x.columns { dx[row, column] += d[row, out] * w[out, column] }
                }
            }
            try add(dx.values, into: target)
        }
        if let target = gradient.weight {
            var dw = Reference(zeros: w.shape)
            for row in 0..<x.rows {
                for out in 0..<w.rows where d[row, out] != 0 {
                    for column in 0..<x.columns { dw[out, column] += d[row, out] * x[row, column] }
                }
            }
            try add(dw.values, into: target)
        }
        if let target = gradient.bias {
            try add((0..<w.rows).map { out in (0..<x.rows).reduce(0) { $0 + d[$1, out] } }, into: target)
        }
    }

    public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float) throws -> (output: Tensor, scale: Tensor)
    {
        let (x, w) = (try values(x), try values(weight))
        let scale = (0..<x.rows).map { row in
            1
                / ((0..<x.columns).reduce(0) { $0 + x[row, $1] * x[row, $1] } / Double(x.columns)
                + Double(epsilon)).squareRoot()
        }
        return (
            made(ReferenceMath.rmsNorm(x, w, epsilon: Double(epsilon))),
            made(Reference(scale, shape: [x.rows]))
        )
    }

    public func rmsNormGradient(
        _ outputGradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, into xGradient: Tensor,
        weightGradient: Tensor
    ) throws {
        let (d, x, w) = (try values(outputGradient), try values(x), try values(weight))
        let s = try values(scale).values
        var (dx, dw) = (Reference(zeros: x.shape), Reference(zeros: w.shape))
        for row in 0..<x.rows {
            var inner = 0.0
            for column in 0..<x.columns {
                inner += d[row, column] * w.values[column] * x[row, column]
                dw.values[column] += d[row, column] * x[row, column] * s[row]
            }
            for column in 0..<x.columns {
                dx[row, column] =
                    s[row] * d[row, column] * w.values[column]
                    - s[row] * s[row] * s[row] * x[row, column] * inner / Double(x.columns)
            }
        }
        try add(dx.values, into: xGradient)
        try add(dw.values, into: weightGradient)
    }

    // MARK: Dense feed-forward

    public func gatedActivation(gate: Tensor, up: Tensor) throws -> Tensor {
        made(ReferenceMath.gatedActivation(try values(gate), try values(up)))
    }

    public func gatedActivationGradient(
        _ outputGradient: Tensor, gate: Tensor, up: Tensor, into gateGradient: Tensor, upGradient: Tensor
    ) throws {
        let (d, gate, up) = (
            try values(outputGradient).values, try values(gate).values, try values(up).values
        )
        let sigmoid = gate.map { 1 / (1 + exp(-$0)) }
        try add(
            d.indices.map { d[$0] * up[$0] * sigmoid[$0] * (1 + gate[$0] * (1 - sigmoid[$0])) },
            into: gateGradient)
        try add(d.indices.map { d[$0] * gate[$0] * sigmoid[$0] }, into: upGradient)
    }

    public func scaled(_ hidden: Tensor, by strengths: [RowStrengths]) throws -> Tensor {
        var result = try values(hidden)
        for part in strengths {
            for row in part.rows {
                for unit in 0..<result.columns { result[row, unit] *= Double(part[unit]) }
            }
        }
        return made(result)
    }

    // MARK: Loss and optimizer

    public func crossEntropy(
        hidden: Tensor, weight: Tensor, targets: [Int32], scale: Float, gradient: LinearGradient?
    ) throws -> Tensor {
        let (h, w) = (try values(hidden), try values(weight))
        let losses = ReferenceMath.crossEntropy(h, w, targets: targets)
        if let gradient {
            let logits = ReferenceMath.linear(h, w)
            var d = Reference(zeros: logits.shape)
            for row in 0..<h.rows where targets[row] >= 0 {
                let p = ReferenceMath.softmax((0..<w.rows).map { logits[row, $0] })
                for out in 0..<w.rows {
                    d[row, out] = Double(scale) * (p[out] - (out == Int(targets[row]) ? 1 : 0))
                }
            }
            try linearGradient(
                made(d), x: hidden, weight: weight,
                into: LinearGradient(x: gradient.x, weight: gradient.weight, bias: nil))
        }
        return made(Reference(losses, shape: [targets.count]))
    }

    public func largestColumns(_ x: Tensor) throws -> Tensor {
        let x = try values(x)
        let best = (0..<x.rows).map { row in
            Double((0..<x.columns).reduce(0) { x[row, $1] > x[row, $0] ? $1 : $0 })
        }
        return made(Reference(best, shape: [x.rows]), dtype: .int32)
    }

    public func add(_ x: Tensor, _ y: Tensor) throws -> Tensor {
        made(Reference(zip(try values(x).values, try values(y).values).map(+), shape: x.shape))
    }

    public func accumulate(_ x: Tensor, into total: Tensor) throws { try add(values(x).values, into: total) }

    public func sumOfSquares(_ x: Tensor) throws -> Double { try values(x).values.reduce(0) { $0 + $1 * $1 } }

    public func adamWStep(
        _ step: AdamWStep, parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor
    ) throws {
        var (p, m, v) = (
            try values(parameter).values, try values(moment1).values, try values(moment2).values
        )
        let (b1, b2) = (Double(step.beta1), Double(step.beta2))
        for (place, raw) in try values(gradient).values.enumerated() {
            let g = raw * Double(step.gradientScale)
            m[place] = b1 * m[place] + (1 - b1) * g
            v[place] = b2 * v[place] + (1 - b2) * g * g
            p[place] *= 1 - Double(step.learningRate) * Double(step.weightDecay)
            p[place] -=
                Double(step.learningRate) * (m[place] / (1 - pow(b1, Double(step.step))))
                / ((v[place] / (1 - pow(b2, Double(step.step)))).squareRoot() + Double(step.epsilon))
        }
        try replace(parameter, by: p)
        try replace(moment1, by: m)
        try replace(moment2, by: v)
    }
}
