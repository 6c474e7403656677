/// Memory that holds the elements of tensors and belongs to a device.
///
/// The processor's kind is `HostStorage`. Another device brings its own, which the host cannot address:
/// elements cross over only through `read` and `write`, in the layout of the tensors' own types
/// (float32 elements take 4 bytes here, however the device holds them).
///
/// Reading and writing through tensors that share a storage is not synchronized: an owner that mutates
/// (the optimizer, a cache) is its only user meanwhile.
public protocol TensorStorage: AnyObject, Sendable {
    /// Bytes available, counted in the tensors' types.
    var byteCount: Int { get }
    /// Whether elements may be written; false for a mapped file.
    var isWritable: Bool { get }
    /// Copies the bytes in `range` to host memory of the same size.
    func read(_ range: Range<Int>, into bytes: UnsafeMutableRawBufferPointer)
    /// Copies host memory over the bytes from `offset` on.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int)
}
