import ArgumentParser
import Foundation
import MonetFoundation

/// Whether files that a command writes may replace others.
struct OverwriteOption: ParsableArguments {
    @Flag(help: "Replace existing files.")
    var overwrite = false

    /// Checks files to be written before the work begins.
    ///
    /// - Throws: `FileError.alreadyExists`, `FileError.unwritable`.
    func check(_ paths: String?...) throws { try Self.check(paths, overwrite: overwrite) }

    /// The same for commands whose `--overwrite` does more.
    ///
    /// - `isFolder`: whether folders will be made, and those above them.
    static func check(_ paths: [String?], overwrite: Bool, isFolder: Bool = false) throws {
        // Devices and pipes hold nothing that could be lost.
        for path in paths.compactMap(\.self) where !overwrite && path != "-" && !path.hasPrefix("/dev/") {
            var status = stat()
            guard stat(path, &status) == 0 else {
                if !isFolder { try checkFolder(of: path) }
                continue
            }
            if [S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) {
                throw FileError.alreadyExists(path: path)
            }
        }
    }

    /// Checks that a file can be made where it is to be.
    private static func checkFolder(of path: String) throws {
        let parent = path.parentFolder
        guard access(parent, W_OK) == 0 else {
            throw FileError.unwritable(
                path: path, reason: "its folder \(parent): " + String(cString: strerror(errno)))
        }
    }
}
