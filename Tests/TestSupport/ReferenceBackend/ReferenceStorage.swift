import MonetCompute
import Synchronization

/// Memory of the reference device: doubles that the host cannot address. Its tensors say float32 (or an integer
/// type), whose bytes are what crosses over.
public final class ReferenceStorage: TensorStorage {
    private let elements: Mutex<[Double]>
    private let dtype: DType

    init(_ elements: [Double], dtype: DType) {
        self.elements = Mutex(elements)
        self.dtype = dtype
    }

    public var byteCount: Int { elements.withLock { $0.count } * dtype.byteCount }
    public var isWritable: Bool { true }

    public func read(_ range: Range<Int>, into bytes: UnsafeMutableRawBufferPointer) {
        let size = dtype.byteCount
        let values = self[(range.lowerBound / size)..<(range.upperBound / size)]
        for (place, value) in values.enumerated() {
            switch dtype {
            case .int64: bytes.storeBytes(of: Int64(value), toByteOffset: 8 * place, as: Int64.self)
            case .int32: bytes.storeBytes(of: Int32(value), toByteOffset: 4 * place, as: Int32.self)
            default: bytes.storeBytes(of: Float(value), toByteOffset: 4 * place, as: Float.self)
            }
        }
    }

    public func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        let size = dtype.byteCount
        let values = (0..<(bytes.count / size)).map { place -> Double in
            switch dtype {
            case .int64: Double(bytes.loadUnaligned(fromByteOffset: 8 * place, as: Int64.self))
            case .int32: Double(bytes.loadUnaligned(fromByteOffset: 4 * place, as: Int32.self))
            default: Double(bytes.loadUnaligned(fromByteOffset: 4 * place, as: Float.self))
            }
        }
        replace(offset / size, by: values)
    }

    subscript(range: Range<Int>) -> [Double] { elements.withLock { Array($0[range]) } }

    func replace(_ start: Int, by values: [Double]) {
        elements.withLock { $0.replaceSubrange(start..<(start + values.count), with: values) }
    }
}
