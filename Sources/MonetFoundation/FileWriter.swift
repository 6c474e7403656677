import Foundation

/// A buffered writer that reports every failure, including a full disk.
public final class FileWriter {
    private let path: String
    private var descriptor: Int32
    private var buffer: [UInt8] = []
    /// The position of the buffer's first byte in the file.
    private var position: Int
    /// Writes end at multiples of this, so that file systems that can store large writes in huge pages do so
    /// and mappings of the file use them.
    private static let block = 1 << 21

    /// Creates or truncates the file, or appends to it.
    public init(path: String, appending: Bool = false) throws {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | (appending ? O_APPEND : O_TRUNC), 0o644)
        guard descriptor >= 0 else { throw AtomicFile.failure(path) }
        position = appending ? max(0, Int(lseek(descriptor, 0, SEEK_END))) : 0
        buffer.reserveCapacity(1 << 16)
    }

    /// Continues a file after its first `count` bytes; what follows them is dropped.
    public init(path: String, keeping count: Int) throws {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT, 0o644)
        guard descriptor >= 0 else { throw AtomicFile.failure(path) }
        position = count
        guard ftruncate(descriptor, off_t(count)) == 0, lseek(descriptor, off_t(count), SEEK_SET) == count
        else { throw AtomicFile.failure(path) }
        buffer.reserveCapacity(1 << 16)
    }

    /// Writes to an open descriptor, which the writer closes.
    init(descriptor: Int32, path: String) {
        self.path = path
        self.descriptor = descriptor
        position = 0
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// The size of the file with everything written so far.
    public var size: Int { position + buffer.count }

    /// Marks the file as being written, for `Leftovers`.
    func lock() { flock(descriptor, LOCK_EX | LOCK_NB) }

    /// Writes UTF-8 text.
    public func write(_ text: String) throws {
        var text = text
        try text.withUTF8 { try write(UnsafeRawBufferPointer($0)) }
    }

    /// Writes bytes.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
        let room = Self.block - (position + buffer.count) % Self.block
        if bytes.count < room {
            buffer.append(contentsOf: bytes)
            return
        }
        var rest = bytes[...]
        if room < Self.block {
            buffer.append(contentsOf: rest.prefix(room))
            rest = rest.dropFirst(room)
        }
        try flush()
        let whole = rest.count / Self.block * Self.block
        try writeOut(UnsafeRawBufferPointer(rebasing: rest.prefix(whole)))
        buffer.append(contentsOf: rest.dropFirst(whole))
    }

    /// Writes bytes.
    public func write(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }

    /// Passes buffered bytes to the system.
    public func flush() throws {
        try buffer.withUnsafeBytes { try writeOut($0) }
        buffer.removeAll(keepingCapacity: true)
    }

    /// Flushes and makes the content durable.
    public func synchronize() throws {
        try flush()
        guard fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP else {
            throw AtomicFile.failure(path)
        }
    }

    /// Flushes, makes the content durable and closes.
    public func finish() throws {
        try synchronize()
        let result = close(descriptor)
        descriptor = -1
        guard result == 0 else { throw AtomicFile.failure(path) }
    }

    private func writeOut(_ bytes: UnsafeRawBufferPointer) throws {
        var offset = 0
        while offset < bytes.count, let base = bytes.baseAddress {
            let written = Foundation.write(descriptor, base + offset, min(bytes.count - offset, 1 << 30))
            if written < 0 {
                if errno == EINTR { continue }
                throw AtomicFile.failure(path)
            }
            offset += written
            position += written
        }
    }
}
