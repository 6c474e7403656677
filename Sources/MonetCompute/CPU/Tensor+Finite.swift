import Foundation

extension Tensor {
    /// The place of an element that is NaN or infinite, counted through all elements; for quantized rows, of the
    /// first element of a row whose scale is. Nil if all are finite. The tensor must be in host memory.
    public func firstNonFinite(pool: WorkerPool = .shared) -> Int? {
        switch dtype {
        case .float32: return search(UInt32.self, exponent: 0x7f80_0000, pool)
        case .bfloat16: return search(UInt16.self, exponent: 0x7f80, pool)
        case .float16: return search(UInt16.self, exponent: 0x7c00, pool)
        case .int8Rows, .int4Rows:
            let scales = dtype == .int8Rows ? 1 : 2
            for row in 0..<rowCount {
                for scale in 0..<scales {
                    let value = (address + row * rowByteCount + 4 * scale).loadUnaligned(as: Float.self)
                    if !value.isFinite { return row * columnCount }
                }
            }
            return nil
        case .int32, .int64, .uint8: return nil
        }
    }

    /// The first element all of whose exponent bits are set.
    private func search<Bits: FixedWidthInteger & Sendable>(
        _ type: Bits.Type, exponent: Bits, _ pool: WorkerPool
    ) -> Int? {
        let (count, chunk) = (count, 1 << 20)
        let chunks = (count + chunk - 1) / chunk
        let found = FirstPlaces(count: chunks)
        pool.parallel(chunks: chunks) { number in
            let values = address.assumingMemoryBound(to: Bits.self)
            let end = min(count, (number + 1) * chunk)
            // Blocks without a branch inside, which compilers turn into vector instructions.
            var start = number * chunk
            while start < end {
                let stop = min(end, start + 4096)
                var isHit = false
                for place in start..<stop { isHit = isHit || (values[place] & exponent) == exponent }
                if isHit {
                    found[number] = (start..<stop).first { values[$0] & exponent == exponent } ?? -1
                    return
                }
                start = stop
            }
        }
        return found.first
    }
}

/// One place for every chunk, written by the thread that searches it.
private final class FirstPlaces: @unchecked Sendable {
    private let places: UnsafeMutableBufferPointer<Int>

    init(count: Int) {
        places = .allocate(capacity: count)
        places.initialize(repeating: -1)
    }

    deinit { places.deallocate() }

    subscript(chunk: Int) -> Int {
        get { places[chunk] }
        set { places[chunk] = newValue }
    }

    var first: Int? { places.first { $0 >= 0 } }
}
