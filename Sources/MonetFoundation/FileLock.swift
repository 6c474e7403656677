import Foundation

/// A lock on an output that a long-running process works on. The system frees it when the process ends, however
/// that happens.
public final class FileLock: Sendable {
    private let descriptor: Int32
    private let path: String

    private init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit {
        unlink(path)
        close(descriptor)
    }

    /// Locks `path`, a file that exists for the lock alone.
    ///
    /// - `output`: what the lock protects, for messages.
    /// - Throws: `FileError.inUse`, which names the process that holds it; `FileError.unwritable`.
    public static func acquire(_ path: String, for output: String) throws -> FileLock {
        while true {
            let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else { throw AtomicFile.failure(path) }
            if flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
                defer { close(descriptor) }
                throw FileError.inUse(path: output, owner: owner(descriptor))
            }
            // Its last holder may have removed the file after it was opened here.
            var (own, named) = (stat(), stat())
            guard fstat(descriptor, &own) == 0, stat(path, &named) == 0, own.st_ino == named.st_ino else {
                close(descriptor)
                continue
            }
            let command = CommandLine.arguments.joined(separator: " ")
            let text = "process \(getpid()): \(command.prefix(800))\n"
            // Who holds the lock helps a reader; that it is held does not depend on it.
            if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, text, text.utf8.count, 0) }
            return FileLock(descriptor: descriptor, path: path)
        }
    }

    private static func owner(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let text = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        return text.isEmpty ? "unknown" : text
    }
}
