import Foundation
import MonetFoundation

/// Where Hugging Face's tools keep downloaded checkpoints: `models--ORG--NAME/snapshots/…`.
public enum HubCache {
    /// The folder of a checkpoint: `name` itself if it is a folder, else the cached snapshot of the
    /// hub model `ORG/NAME`.
    ///
    /// - Throws: `FileError.unreadable` if neither is there.
    public static func resolve(_ name: String) throws -> String {
        var isFolder: ObjCBool = false
        if FileManager.default.fileExists(atPath: name, isDirectory: &isFolder) {
            guard isFolder.boolValue else {
                throw FileError.unreadable(path: name, reason: "it is a file; a checkpoint is a folder")
            }
            return name
        }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty && !$0.hasPrefix(".") }) else {
            throw FileError.unreadable(path: name, reason: "there is no such folder")
        }
        let root = cacheFolder + "/models--\(parts[0])--\(parts[1])"
        if let revision = try? TextFile.read(root + "/refs/main").trimmingCharacters(
            in: .whitespacesAndNewlines)
        {
            let snapshot = root + "/snapshots/" + revision
            if FileManager.default.fileExists(atPath: snapshot + "/config.json") { return snapshot }
        }
        throw FileError.unreadable(
            path: name, reason: "there is no such folder, and no complete snapshot of it in \(cacheFolder)")
    }

    /// `HF_HUB_CACHE`, or `hub` under `HF_HOME`, or `~/.cache/huggingface/hub`.
    private static var cacheFolder: String {
        let environment = ProcessInfo.processInfo.environment
        if let folder = environment["HF_HUB_CACHE"], !folder.isEmpty { return folder }
        if let home = environment["HF_HOME"], !home.isEmpty { return home + "/hub" }
        return NSHomeDirectory() + "/.cache/huggingface/hub"
    }
}
