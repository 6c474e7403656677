import Foundation
import MonetFoundation

/// Finds programs on PATH.
enum SystemTools {
    /// The folders of PATH.
    static var searchPath: String { ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin" }

    /// The path of the first program on `searchPath` that has one of `names`; earlier names are preferred.
    ///
    /// - `isShown`: whether a program may be taken that lies at a path, links resolved.
    static func path(
        of names: [String], on searchPath: String = searchPath,
        where isShown: (String) -> Bool = { _ in true }
    ) -> String? {
        for name in names {
            for folder in searchPath.split(separator: ":") where folder.hasPrefix("/") {
                let path = folder + "/" + name
                var status = stat()
                guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, access(path, X_OK) == 0,
                    let resolved = realpath(path, nil)
                else { continue }
                defer { free(resolved) }
                if isShown(String(cString: resolved)) { return path }
            }
        }
        return nil
    }

    /// Whether a sandbox shows a path: it is in one of the system's own folders. What users installed in their homes
    /// or beside the system is not.
    static func isSystem(_ path: String) -> Bool {
        ["/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/"].contains { path.hasPrefix($0) }
    }
}
