import Foundation
import MonetFoundation

/// An open descriptor that closes itself and is not handed to children unless they are meant to have it.
package final class Descriptor: Sendable {
    let number: Int32

    /// Takes over `number`, moved out of the way of the small numbers that children get.
    ///
    /// - Throws: `SandboxError.notStarted` if this process has too many open.
    package init(_ number: Int32) throws {
        guard number >= 0 else { throw Self.failure() }
        let moved = fcntl(number, F_DUPFD_CLOEXEC, Self.aboveThoseOfChildren)
        let failure = Self.failure()
        close(number)
        guard moved >= 0 else { throw failure }
        self.number = moved
    }

    deinit { close(number) }

    /// What a child's numbers stay below.
    static let aboveThoseOfChildren: Int32 = 64

    /// A pipe whose reading end never waits.
    static func pipe() throws -> (reading: Descriptor, writing: Descriptor) {
        var ends: [Int32] = [-1, -1]
        guard Foundation.pipe(&ends) == 0 else { throw failure() }
        let writing = Result { try Descriptor(ends[1]) }
        let reading = try Descriptor(ends[0])
        _ = fcntl(reading.number, F_SETFL, O_NONBLOCK)
        return (reading, try writing.get())
    }

    /// A file without a name that holds `bytes`, to be read from its start.
    static func file(holding bytes: [UInt8]) throws -> Descriptor {
        let folder = FileManager.default.temporaryDirectory.path
        var path = Array((folder + "/monet-program-XXXXXX").utf8CString)
        let descriptor = try Descriptor(mkstemp(&path))
        unlink(path)
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                write(descriptor.number, $0.baseAddress, $0.count)
            }
            guard count > 0 || errno == EINTR else { throw failure() }
            written += max(0, count)
        }
        lseek(descriptor.number, 0, SEEK_SET)
        return descriptor
    }

    /// What `errno` says.
    static func failure() -> SandboxError { .notStarted(reason: String(cString: strerror(errno))) }
}

/// What came through a pipe so far.
struct PipeReader {
    let descriptor: Descriptor
    private(set) var bytes: [UInt8] = []
    /// Whether more can come.
    private(set) var isOpen = true

    init(_ descriptor: Descriptor) { self.descriptor = descriptor }

    /// Takes what is there, without waiting, until `limit` bytes are exceeded: one more is kept, which shows it.
    ///
    /// - `discardsRest`: whether the rest is read and forgotten; otherwise it stays where it is.
    mutating func read(upTo limit: Int, discardsRest: Bool = false) {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        // What is written meanwhile waits for the next call.
        for _ in 0..<64 where isOpen {
            let room = limit + 1 - bytes.count
            guard room > 0 || discardsRest else { return }
            let count = Foundation.read(
                descriptor.number, &buffer, discardsRest ? buffer.count : min(buffer.count, room))
            if count > 0 {
                bytes.append(contentsOf: buffer[..<min(count, max(0, room))])
            } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
                isOpen = false
            } else if errno == EAGAIN {
                return
            }
        }
    }

    /// The same, of which no more is read.
    var closed: PipeReader {
        var result = self
        result.isOpen = false
        return result
    }

    /// The first `limit` bytes as text.
    func text(upTo limit: Int) -> String { String(decoding: bytes.prefix(limit), as: UTF8.self) }
}
