import Foundation

/// Writes files and folders to a temporary name beside the target and renames them, so that the target is
/// complete at every moment: either the old content or the new.
public enum AtomicFile {
    /// Replaces the file at `path` by what `body` writes.
    ///
    /// - Throws: `FileError.unwritable`, or what `body` throws; the old file then stays.
    public static func write(to path: String, _ body: (FileWriter) throws -> Void) throws {
        let temporary = path + ".tmp-\(getpid())"
        do {
            let writer = try FileWriter(path: temporary)
            try body(writer)
            try writer.finish()
            guard rename(temporary, path) == 0 else { throw failure(path) }
        } catch {
            unlink(temporary)
            throw error
        }
        synchronizeFolder(of: path)
    }

    /// Replaces the file at `path` by `text`.
    public static func write(_ text: String, to path: String) throws {
        try write(to: path) { try $0.write(text) }
    }

    /// Creates the folder at `path` from what `body` writes to a temporary one. An existing folder
    /// is replaced only if `replacing`.
    public static func writeFolder(_ path: String, replacing: Bool, _ body: (String) throws -> Void) throws {
        let manager = FileManager.default
        if manager.fileExists(atPath: path), !replacing {
            throw FileError.alreadyExists(path: path)
        }
        let path = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
        let temporary = path + ".tmp-\(getpid())"
        let retired = path + ".old-\(getpid())"
        do {
            try? manager.removeItem(atPath: temporary)
            try createFolder(temporary)
            try body(temporary)
            let hadOld = rename(path, retired) == 0
            guard rename(temporary, path) == 0 else {
                let error = failure(path)
                if hadOld { rename(retired, path) }
                throw error
            }
            if hadOld { try? manager.removeItem(atPath: retired) }
        } catch {
            try? manager.removeItem(atPath: temporary)
            throw error
        }
        synchronizeFolder(of: path)
    }

    /// Creates a folder and its parents.
    public static func createFolder(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw FileError.unwritable(path: path, reason: "the folder cannot be made: \(reason(of: error))")
        }
    }

    private static func reason(of error: any Error) -> String {
        let nsError = error as NSError
        if let underlying = nsError.userInfo[NSUnderlyingErrorKey] as? NSError,
            underlying.domain == NSPOSIXErrorDomain
        {
            return String(cString: strerror(Int32(underlying.code)))
        }
        return nsError.localizedDescription
    }

    static func failure(_ path: String) -> FileError {
        .unwritable(path: path, reason: String(cString: strerror(errno)))
    }

    /// Makes a rename in the parent folder durable.
    private static func synchronizeFolder(of path: String) {
        let descriptor = open(
            (path as NSString).deletingLastPathComponent.isEmpty
                ? "." : (path as NSString).deletingLastPathComponent, O_RDONLY)
        if descriptor >= 0 {
            fsync(descriptor)
            close(descriptor)
        }
    }
}

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

    deinit { if descriptor >= 0 { close(descriptor) } }

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

    /// Flushes, makes the content durable and closes.
    public func finish() throws {
        try flush()
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw AtomicFile.failure(path) }
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
