import Foundation

/// A file mapped read-only into memory: pages are read when accessed, and shared with the page cache.
///
/// `@unchecked Sendable`: the address never changes, and nothing writes to the mapping.
public final class MappedFile: @unchecked Sendable {
    /// The file's path.
    public let path: String
    /// The file's bytes; empty for an empty file. Valid as long as this object.
    public let bytes: UnsafeRawBufferPointer

    /// Maps the file at `path`.
    ///
    /// - `readsStreams`: whether a pipe or terminal is read to its end, for files that are read from front to
    ///   back. They are refused otherwise, without waiting for what is written to them.
    /// - Throws: `FileError.unreadable` if it cannot be opened, is a folder or device, or cannot be mapped.
    public init(path: String, readsStreams: Bool = false) throws {
        self.path = path
        func fail(_ reason: String? = nil) -> FileError {
            .unreadable(path: path, reason: reason ?? String(cString: strerror(errno)))
        }
        var status = stat()
        guard stat(path, &status) == 0 else { throw fail() }
        var isStream = false
        if status.st_mode & S_IFMT != S_IFREG {
            isStream = readsStreams && Self.isStream(status)
            guard isStream else { throw fail(Self.kind(status)) }
        }
        let descriptor = open(path, isStream ? O_RDONLY : O_RDONLY | O_NONBLOCK)
        guard descriptor >= 0 else { throw fail() }
        defer { close(descriptor) }
        if isStream {
            bytes = try Self.readToEnd(descriptor, path)
            return
        }
        guard fstat(descriptor, &status) == 0 else { throw fail() }
        guard status.st_mode & S_IFMT == S_IFREG else { throw fail(Self.kind(status)) }
        let size = Int(status.st_size)
        if size == 0 {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let address = mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0), address != MAP_FAILED
        else { throw fail() }
        #if os(Linux)
            // Where supported, huge pages are read in larger pieces and need fewer TLB entries.
            if size >= 1 << 21 { madvise(address, size, HugePages.advice) }
        #endif
        bytes = UnsafeRawBufferPointer(start: address, count: size)
        if size < 1024, bytes.starts(with: Self.pointerStart.utf8) {
            throw fail("it is a Git LFS pointer, not the file itself; `git lfs pull` fetches the file")
        }
        ShrinkingFiles.add(bytes, path: path)
    }

    /// Checks that a path is a regular file, for libraries that open it themselves.
    ///
    /// - Throws: `FileError.unreadable`.
    public static func requireRegularFile(_ path: String) throws {
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw FileError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw FileError.unreadable(path: path, reason: kind(status))
        }
    }

    /// How the short files begin that stand for large ones in a repository cloned without Git LFS.
    private static let pointerStart = "version https://git-lfs.github.com/spec/"

    private static func isStream(_ status: stat) -> Bool {
        switch status.st_mode & S_IFMT {
        case S_IFIFO, S_IFSOCK: true
        // A terminal; other devices have no end.
        case S_IFCHR: isatty(STDIN_FILENO) == 1 && status.st_rdev == Self.terminal
        default: false
        }
    }

    private static var terminal: dev_t {
        var status = stat()
        return fstat(STDIN_FILENO, &status) == 0 ? status.st_rdev : 0
    }

    private static func kind(_ status: stat) -> String {
        switch status.st_mode & S_IFMT {
        case S_IFDIR: "it is a folder"
        case S_IFIFO, S_IFSOCK: "it is a pipe, and only a regular file can be mapped"
        case S_IFCHR, S_IFBLK: "it is a device"
        default: "it is not a regular file"
        }
    }

    /// The bytes of a stream, in memory of their own that is freed as a mapping.
    private static func readToEnd(_ descriptor: Int32, _ path: String) throws -> UnsafeRawBufferPointer {
        var content: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError.unreadable(path: path, reason: String(cString: strerror(errno)))
            }
            if count == 0 { break }
            if content.count + count > content.capacity {
                try MemoryLimits.require(2 * (content.count + count), for: "the text from \(path)")
            }
            content += chunk[..<count]
        }
        if content.isEmpty { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let memory = mmap(nil, content.count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0)
        guard let memory, memory != MAP_FAILED else {
            throw FileError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        memory.copyMemory(from: content, byteCount: content.count)
        return UnsafeRawBufferPointer(start: memory, count: content.count)
    }

    deinit {
        guard let address = bytes.baseAddress else { return }
        ShrinkingFiles.remove(bytes)
        munmap(UnsafeMutableRawPointer(mutating: address), bytes.count)
    }
}

/// Pages of 2 MB instead of 4 KB.
package enum HugePages {
    /// MADV_HUGEPAGE, which Glibc's module does not export.
    package static let advice: Int32 = 14
}
