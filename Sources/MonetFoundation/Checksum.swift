import Foundation

/// A fast check of whether bytes are those that were written: any change of one word changes it.
///
/// Not cryptographic. Bytes are taken in little-endian words of eight, in four lanes, so that it keeps up with
/// the disk.
public struct Checksum: Sendable {
    private var lanes: SIMD4<UInt64> = [
        0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 1,
    ]
    private var pending: [UInt8] = []
    private var count = 0

    /// Of no bytes.
    public init() {}

    /// Of one run of bytes.
    public init(of bytes: UnsafeRawBufferPointer) {
        update(bytes)
    }

    /// Of a file, which is read in pieces: a mapping of it would count as memory of the process.
    ///
    /// - Throws: `FileError.unreadable`.
    public init(contentsOfFile path: String) throws {
        func fail() -> FileError { .unreadable(path: path, reason: String(cString: strerror(errno))) }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw fail() }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
            if count == 0 { return }
            if count < 0 {
                if errno == EINTR { continue }
                throw fail()
            }
            buffer.withUnsafeBytes { update(UnsafeRawBufferPointer(rebasing: $0.prefix(count))) }
        }
    }

    /// Adds bytes.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        count += bytes.count
        var bytes = bytes
        if !pending.isEmpty {
            let missing = min(32 - pending.count, bytes.count)
            pending += bytes.prefix(missing)
            bytes = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(missing))
            guard pending.count == 32 else { return }
            let block = pending
            pending.removeAll(keepingCapacity: true)
            block.withUnsafeBytes { mix($0) }
        }
        let whole = bytes.count / 32 * 32
        mix(UnsafeRawBufferPointer(rebasing: bytes.prefix(whole)))
        pending += bytes.dropFirst(whole)
    }

    private mutating func mix(_ bytes: UnsafeRawBufferPointer) {
        var lanes = lanes
        var place = 0
        while place < bytes.count {
            let words = bytes.loadUnaligned(fromByteOffset: place, as: SIMD4<UInt64>.self)
            for lane in 0..<4 {
                let mixed = (lanes[lane] ^ UInt64(littleEndian: words[lane])) &* 0xd6e8_feb8_6659_fd93
                lanes[lane] = mixed ^ (mixed >> 32)
            }
            place += 32
        }
        self.lanes = lanes
    }

    /// The checksum of all bytes so far, as 16 hexadecimal digits.
    public var text: String {
        var last = self
        let block = pending + Array(repeating: 0, count: (32 - pending.count) % 32)
        block.withUnsafeBytes { last.mix($0) }
        var sum = UInt64(count)
        for lane in 0..<4 {
            sum = (sum ^ last.lanes[lane]) &* 0xbf58_476d_1ce4_e5b9
            sum ^= sum >> 31
        }
        let text = String(sum, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }
}
