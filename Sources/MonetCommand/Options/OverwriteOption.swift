import ArgumentParser
import Foundation
import MonetFoundation

/// Whether files that a command writes may replace others.
struct OverwriteOption: ParsableArguments {
    @Flag(help: "Replace existing files.")
    var overwrite = false

    /// Checks outputs before the work begins.
    ///
    /// - Throws: `FileError.alreadyExists`.
    func check(_ paths: String?...) throws { try Self.check(paths, overwrite: overwrite) }

    /// The same for commands whose `--overwrite` does more.
    static func check(_ paths: [String?], overwrite: Bool) throws {
        // Devices and pipes hold nothing that could be lost.
        for path in paths.compactMap(\.self) where !overwrite && path != "-" && !path.hasPrefix("/dev/") {
            var status = stat()
            guard stat(path, &status) == 0 else { continue }
            if [S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) {
                throw FileError.alreadyExists(path: path)
            }
        }
    }
}
