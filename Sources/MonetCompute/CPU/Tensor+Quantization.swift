import Foundation

extension Tensor {
    /// The rows in a quantized format, which every reader widens to the same numbers.
    ///
    /// - `int8Rows`: one signed byte per element times the row's scale, largest magnitude / 127.
    /// - `int4Rows`: unit₁ · scale · q + unit₂ · minimum, q in 0...15; scale and minimum are bytes, one
    ///   of each for every 32 elements, chosen for the least squared error.
    ///
    /// Elements must be finite. The layout of the bytes is described in `weights.inc` and `int4.inc`.
    func quantized(to target: DType, by instructionSet: Kernels, pool: WorkerPool) -> Tensor {
        precondition(target.isQuantized && dtype.isReal && !shape.isEmpty, "\(dtype) \(shape) as \(target)")
        let result = Tensor(uninitialized: shape, dtype: target)
        let (rows, columns, rowBytes) = (rowCount, columnCount, result.rowByteCount)
        pool.forEachRange(of: rows, minimum: max(1, (1 << 14) / max(1, columns))) { range, _ in
            let values = Tensor(uninitialized: [columns])
            var groups = Int4Groups(columns: columns)
            for row in range {
                readRow(row, columns: 0..<columns, into: values.pointer, by: instructionSet)
                let out = result.address + row * rowBytes
                if target == .int8Rows {
                    Self.writeInt8(values.pointer, columns, to: out, byteCount: rowBytes)
                } else {
                    groups.write(values.pointer, to: out, byteCount: rowBytes)
                }
            }
        }
        return result
    }

    private static func writeInt8(
        _ values: UnsafePointer<Float>, _ columns: Int, to out: UnsafeMutableRawPointer, byteCount: Int
    ) {
        var largest: Float = 0
        for column in 0..<columns { largest = max(largest, abs(values[column])) }
        let scale = largest / 127
        let inverse = scale > 0 ? 1 / scale : 0
        memset(out, 0, byteCount)
        out.storeBytes(of: scale, as: Float.self)
        let bytes = (out + 4).assumingMemoryBound(to: Int8.self)
        for column in 0..<columns {
            bytes[column] = Int8(max(-127, min(127, (values[column] * inverse).rounded())))
        }
    }
}

/// Chooses scales, minimums and numbers of one row of 4-bit weights.
private struct Int4Groups {
    private static let width = 32
    private let columns: Int
    private var scales: [Float]
    private var minimums: [Float]

    init(columns: Int) {
        self.columns = columns
        let count = (columns + 127) / 128 * 4
        scales = Array(repeating: 0, count: count)
        minimums = scales
    }

    mutating func write(
        _ values: UnsafePointer<Float>, to out: UnsafeMutableRawPointer, byteCount: Int
    ) {
        let count = scales.count
        for group in 0..<count {
            let start = group * Self.width
            let length = min(Self.width, columns - start)
            (scales[group], minimums[group]) = length > 0 ? Self.fit(values + start, length) : (0, 0)
        }
        let scaleUnit = (scales.max() ?? 0) / 255
        let minimumUnit = minimums.reduce(0) { max($0, abs($1)) } / 127
        memset(out, 0, byteCount)
        out.storeBytes(of: scaleUnit, as: Float.self)
        out.storeBytes(of: minimumUnit, toByteOffset: 4, as: Float.self)
        let bytes = (out + 8).assumingMemoryBound(to: UInt8.self)
        let nibbles = bytes + 2 * count
        for group in 0..<count {
            let scaleByte = scaleUnit > 0 ? UInt8(max(0, min(255, (scales[group] / scaleUnit).rounded()))) : 0
            let minimumByte =
                minimumUnit > 0 ? Int8(max(-127, min(127, (minimums[group] / minimumUnit).rounded()))) : 0
            bytes[group] = scaleByte
            bytes[count + group] = UInt8(bitPattern: minimumByte)
            let (scale, minimum) = (scaleUnit * Float(scaleByte), minimumUnit * Float(minimumByte))
            let inverse = scale > 0 ? 1 / scale : 0
            let start = group * Self.width
            for column in start..<max(start, min(columns, start + Self.width)) {
                let q = UInt8(Self.nearest((values[column] - minimum) * inverse))
                let place = column % 128 / 32
                nibbles[column / 128 * 64 + place / 2 * 32 + column % 32] |= place % 2 == 0 ? q : q << 4
            }
        }
    }

    private static func nearest(_ q: Float) -> Float { max(0, min(15, q.rounded())) }

    /// The scale and minimum with the least squared error. The search starts from the values' range and from
    /// slightly narrower ones, and alternates between the nearest numbers and the best line through them.
    private static func fit(_ values: UnsafePointer<Float>, _ count: Int) -> (scale: Float, minimum: Float) {
        var (low, high) = (values[0], values[0])
        for i in 1..<max(1, count) { (low, high) = (min(low, values[i]), max(high, values[i])) }
        guard high > low else { return (0, low) }
        var best: (error: Float, scale: Float, minimum: Float) = (.infinity, 0, low)
        for shrink: Float in [0, 0.04, 0.08] {
            var scale = (high - low) * (1 - shrink) / 15
            var minimum = low + (high - low) * shrink / 2
            for _ in 0..<2 {
                let inverse = 1 / scale
                var (sumQ, sumQQ, sumX, sumQX): (Float, Float, Float, Float) = (0, 0, 0, 0)
                var error: Float = 0
                for i in 0..<count {
                    let q = nearest((values[i] - minimum) * inverse)
                    let difference = values[i] - (scale * q + minimum)
                    error += difference * difference
                    sumQ += q
                    sumQQ += q * q
                    sumX += values[i]
                    sumQX += q * values[i]
                }
                if error < best.error { best = (error, scale, minimum) }
                let determinant = Float(count) * sumQQ - sumQ * sumQ
                guard determinant > 0 else { break }
                let slope = (Float(count) * sumQX - sumQ * sumX) / determinant
                guard slope > 0, slope.isFinite else { break }
                scale = slope
                minimum = (sumX - slope * sumQ) / Float(count)
            }
        }
        return (best.scale, best.minimum)
    }
}
