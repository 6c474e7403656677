import Foundation

/// Writes files and folders to a temporary name beside the target and renames them, so that the target is
/// complete at every moment: either the old content or the new.
///
/// A symbolic link is followed. Devices, pipes and open descriptors (`/dev/stdout`, `/dev/fd/3`, or `-` for
/// standard output) are written to as they are.
public enum AtomicFile {
    /// Replaces the file at `path` by what `body` writes.
    ///
    /// - Throws: `FileError.unwritable`, or what `body` throws; the old file then stays.
    public static func write(to path: String, _ body: (FileWriter) throws -> Void) throws {
        let place = try OutputPlace(path)
        if let descriptor = try place.openStream() {
            let writer = FileWriter(descriptor: descriptor, path: path)
            try body(writer)
            return try writer.finish()
        }
        Leftovers.collect(beside: place.path)
        let temporary = Leftovers.temporary(place.path)
        do {
            let writer = try FileWriter(path: temporary)
            writer.lock()
            try body(writer)
            try writer.finish()
            guard rename(temporary, place.path) == 0 else { throw failure(path) }
        } catch {
            unlink(temporary)
            throw error
        }
        try synchronizeFolder(of: place.path)
    }

    /// Replaces the file at `path` by `text`.
    public static func write(_ text: String, to path: String) throws {
        try write(to: path) { try $0.write(text) }
    }

    /// Creates the folder at `path` from what `body` writes to a temporary one.
    ///
    /// - `kind`: what may be replaced, as an empty folder may too; nil if nothing may.
    /// - Throws: `FileError.alreadyExists`, `FileError.notReplaceable`, or what `body` throws; the old folder
    ///   then stays.
    public static func writeFolder(
        _ path: String, replacing kind: FolderKind? = nil, _ body: (String) throws -> Void
    ) throws {
        let place = try OutputPlace(path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path)
        Leftovers.collect(beside: place.path)
        let exists = FileManager.default.fileExists(atPath: place.path)
        if exists {
            guard let kind else { throw FileError.alreadyExists(path: path) }
            try kind.check(place.path)
        }
        let temporary = Leftovers.temporary(place.path)
        do {
            try createFolder(temporary)
            let lock = open(temporary, O_RDONLY)
            flock(lock, LOCK_EX | LOCK_NB)
            defer { close(lock) }
            try body(temporary)
            try synchronizeFolder(temporary)
            if exists {
                try exchange(temporary, place.path)
            } else {
                guard rename(temporary, place.path) == 0 else { throw failure(path) }
            }
            // After an exchange, this is the old folder.
            try? FileManager.default.removeItem(atPath: temporary)
        } catch {
            try? FileManager.default.removeItem(atPath: temporary)
            throw error
        }
        try synchronizeFolder(of: place.path)
    }

    /// Removes a folder so that at no moment a part of it stands under its name.
    public static func removeFolder(_ path: String) throws {
        let retired = Leftovers.temporary(path)
        guard rename(path, retired) == 0 else { throw failure(path) }
        try? FileManager.default.removeItem(atPath: retired)
    }

    /// Creates a folder and its parents.
    public static func createFolder(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw FileError.unwritable(path: path, reason: "the folder cannot be made: \(reason(of: error))")
        }
    }

    /// Exchanges two folders in one step where the file system can, else in two renames, of which the first
    /// leaves what `Leftovers` recovers.
    private static func exchange(_ new: String, _ old: String) throws {
        if FolderExchange.run(new, old) { return }
        let retired = Leftovers.retired(old)
        guard rename(old, retired) == 0 else { throw failure(old) }
        guard rename(new, old) == 0 else {
            let error = failure(old)
            rename(retired, old)
            throw error
        }
        try? FileManager.default.removeItem(atPath: retired)
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

    /// Makes a rename durable.
    private static func synchronizeFolder(of path: String) throws {
        try synchronizeFolder(path.parentFolder)
    }

    private static func synchronizeFolder(_ folder: String) throws {
        let descriptor = open(folder, O_RDONLY)
        // A folder that may be written to and not read cannot be synchronized.
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP else {
            throw FileError.unwritable(
                path: folder,
                reason: "its entries cannot be synchronized: \(String(cString: strerror(errno)))")
        }
    }
}

/// What a folder must hold to be replaced: the output of one kind of command, and nothing else.
public struct FolderKind: Sendable {
    /// What such a folder is called in messages.
    let name: String
    /// The file that every such folder has.
    let mark: String
    /// Whether a file belongs to such a folder.
    let contains: @Sendable (String) -> Bool

    /// Describes a kind of folder.
    public init(name: String, mark: String, contains: @escaping @Sendable (String) -> Bool) {
        self.name = name
        self.mark = mark
        self.contains = contains
    }

    /// Checks that a folder is empty or of this kind.
    ///
    /// - Throws: `FileError.notReplaceable`.
    func check(_ path: String) throws {
        func fail(_ reason: String) -> FileError { .notReplaceable(path: path, reason: reason) }
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else {
            throw fail("it is a file, not a \(name)")
        }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
        } catch { throw fail("it cannot be read") }
        guard names.isEmpty || names.contains(mark) else {
            throw fail("it is no \(name): there is no \(mark)")
        }
        for name in names {
            var isFolder: ObjCBool = false
            _ = FileManager.default.fileExists(atPath: path + "/" + name, isDirectory: &isFolder)
            guard contains(name), !isFolder.boolValue else {
                throw fail("it holds \(name), which no \(self.name) has")
            }
        }
    }
}

/// Where an output goes.
private struct OutputPlace {
    /// The path with links resolved.
    let path: String
    /// The descriptor of an open stream, or a device or pipe to open.
    private let stream: Stream?

    private enum Stream {
        case descriptor(Int32)
        case device
    }

    init(_ path: String) throws {
        for (name, descriptor) in [("-", STDOUT_FILENO), ("/dev/stdout", 1), ("/dev/stderr", 2)]
        where path == name {
            (self.path, stream) = (path, .descriptor(descriptor))
            return
        }
        for folder in ["/dev/fd/", "/proc/self/fd/"] where path.hasPrefix(folder) {
            if let number = Int32(path.dropFirst(folder.count)) {
                (self.path, stream) = (path, .descriptor(number))
                return
            }
        }
        self.path = try Self.resolved(path)
        var status = stat()
        let isThere = stat(self.path, &status) == 0
        let type = status.st_mode & S_IFMT
        stream = isThere && type != S_IFREG && type != S_IFDIR ? .device : nil
    }

    /// The place that a chain of links leads to, whether anything is there or not.
    private static func resolved(_ path: String) throws -> String {
        var path = path
        for _ in 0..<40 {
            var status = stat()
            guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return path }
            let target: String
            do {
                target = try FileManager.default.destinationOfSymbolicLink(atPath: path)
            } catch {
                throw FileError.unwritable(path: path, reason: "its link cannot be read")
            }
            path = target.hasPrefix("/") ? target : path.parentFolder + "/" + target
        }
        throw FileError.unwritable(path: path, reason: String(cString: strerror(ELOOP)))
    }

    /// A descriptor to write to; nil for a file or folder.
    func openStream() throws -> Int32? {
        guard let stream else { return nil }
        let descriptor: Int32
        switch stream {
        case .descriptor(let number): descriptor = dup(number)
        case .device: descriptor = open(path, O_WRONLY)
        }
        guard descriptor >= 0 else { throw AtomicFile.failure(path) }
        return descriptor
    }
}

/// Temporary names, and what processes that were killed left under them.
private enum Leftovers {
    static func temporary(_ path: String) -> String { path + ".tmp-\(getpid())" }
    static func retired(_ path: String) -> String { path + ".old-\(getpid())" }

    /// Removes what dead processes left beside `path`; an old folder whose place is empty returns to it.
    static func collect(beside path: String) {
        let folder = path.parentFolder
        let base = path.lastPathName
        let names =
            (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        for name in names where name.hasPrefix(base + ".tmp-") || name.hasPrefix(base + ".old-") {
            guard let process = Int32(name.dropFirst(base.count + 5)), process > 0,
                process == getpid() || (kill(process, 0) != 0 && errno == ESRCH)
            else { continue }
            let leftover = folder + "/" + name
            if isLocked(leftover) { continue }
            if name.hasPrefix(base + ".old-"), !FileManager.default.fileExists(atPath: path) {
                rename(leftover, path)
            } else {
                try? FileManager.default.removeItem(atPath: leftover)
            }
        }
    }

    /// Whether a process writes it, perhaps in another container, where numbers of processes differ.
    private static func isLocked(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK
    }
}

/// Exchanging two paths in one step.
private enum FolderExchange {
    /// Whether both were exchanged.
    static func run(_ a: String, _ b: String) -> Bool {
        #if os(Linux)
            // Glibc's module does not export it.
            typealias RenameAt2 =
                @convention(c) (Int32, UnsafePointer<CChar>, Int32, UnsafePointer<CChar>, UInt32)
                -> Int32
            guard let symbol = dlsym(nil, "renameat2") else { return false }
            return unsafeBitCast(symbol, to: RenameAt2.self)(AT_FDCWD, a, AT_FDCWD, b, 2) == 0
        #else
            return renamex_np(a, b, UInt32(RENAME_SWAP)) == 0
        #endif
    }
}
