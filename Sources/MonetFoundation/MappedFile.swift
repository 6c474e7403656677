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
    /// - Throws: `FileError.unreadable` if it cannot be opened, is a directory or cannot be mapped.
    public init(path: String) throws {
        self.path = path
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else {
            throw FileError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw FileError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw FileError.unreadable(path: path, reason: "it is not a regular file")
        }
        let size = Int(status.st_size)
        if size == 0 {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let address = mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0), address != MAP_FAILED
        else {
            throw FileError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        #if os(Linux)
            // Where supported, huge pages are read in larger pieces and need fewer TLB entries.
            if size >= 1 << 21 { madvise(address, size, HugePages.advice) }
        #endif
        bytes = UnsafeRawBufferPointer(start: address, count: size)
        if size < 1024, bytes.starts(with: Self.pointerStart.utf8) {
            throw FileError.unreadable(
                path: path,
                reason: "it is a Git LFS pointer, not the file itself; `git lfs pull` fetches the file")
        }
    }

    /// How the short files begin that stand for large ones in a repository cloned without Git LFS.
    private static let pointerStart = "version https://git-lfs.github.com/spec/"

    deinit {
        if let address = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: address), bytes.count) }
    }
}

/// Pages of 2 MB instead of 4 KB.
package enum HugePages {
    /// MADV_HUGEPAGE, which Glibc's module does not export.
    package static let advice: Int32 = 14
}
