import Foundation
import MonetFoundation

/// Where Hugging Face's tools keep downloaded checkpoints: `models--ORG--NAME/{blobs,refs,snapshots}`.
public struct HubCache: Sendable {
    /// The folder of all repositories.
    public let folder: String

    /// The cache that Hugging Face's tools use in this environment: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or
    /// `huggingface/hub` in `XDG_CACHE_HOME` or `~/.cache`; `~` and variables are expanded.
    public init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        func variable(_ name: String) -> String? {
            environment[name].flatMap { $0.isEmpty ? nil : Self.expanded($0, environment) }
        }
        folder =
            variable("HF_HUB_CACHE") ?? variable("HUGGINGFACE_HUB_CACHE")
            ?? variable("HF_HOME").map { $0 + "/hub" }
            ?? (variable("XDG_CACHE_HOME") ?? Self.expanded("~/.cache", environment)) + "/huggingface/hub"
    }

    /// The path with `~`, `$NAME` and `${NAME}` replaced, as Python's `expandvars` and `expanduser` do.
    private static func expanded(_ path: String, _ environment: [String: String]) -> String {
        var result = ""
        var rest = path[...]
        while let start = rest.firstIndex(of: "$") {
            result += rest[..<start]
            var name = rest[rest.index(after: start)...]
            let isBraced = name.first == "{"
            if isBraced { name.removeFirst() }
            let end = name.firstIndex { !($0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_")) }
            let word = name[..<(end ?? name.endIndex)]
            var after = name[(end ?? name.endIndex)...]
            if isBraced, after.first == "}" { after.removeFirst() }
            if let value = environment[String(word)], !word.isEmpty {
                result += value
            } else {
                result += rest[start..<after.startIndex]
            }
            rest = after
        }
        result += rest
        guard result == "~" || result.hasPrefix("~/") else { return result }
        let home = environment["HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? NSHomeDirectory()
        return home + result.dropFirst()
    }

    /// The folder of a checkpoint: `name` itself if it is a folder, else the cached snapshot of the hub model
    /// `ORG/NAME`.
    ///
    /// - `revision`: a branch, tag or commit; by default `main`, or the only snapshot.
    /// - Throws: `FileError.unreadable` if neither is there.
    public func resolve(_ name: String, revision: String? = nil) throws -> String {
        var isFolder: ObjCBool = false
        if FileManager.default.fileExists(atPath: name, isDirectory: &isFolder) {
            guard isFolder.boolValue else {
                throw FileError.unreadable(path: name, reason: "it is a file; a checkpoint is a folder")
            }
            guard revision == nil else {
                throw FileError.unreadable(path: name, reason: "a folder has no revisions; a hub model does")
            }
            return name
        }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty && !$0.hasPrefix(".") }) else {
            throw FileError.unreadable(path: name, reason: "there is no such folder")
        }
        let root = folder + "/models--\(parts[0])--\(parts[1])"
        let snapshots = ((try? FileManager.default.contentsOfDirectory(atPath: root + "/snapshots")) ?? [])
            .filter { Self.isCommit($0) && Self.isComplete(root + "/snapshots/" + $0) }.sorted()
        func fail(_ reason: String) -> FileError {
            .unreadable(
                path: name,
                reason: "there is no such folder, and \(reason) in \(folder)"
                    + (snapshots.isEmpty
                        ? "" : "; complete snapshots: \(snapshots.joined(separator: ", "))"))
        }
        if let revision {
            let matches = snapshots.filter { $0.hasPrefix(revision) }
            if let commit = try commit(of: revision, in: root), snapshots.contains(commit) {
                return root + "/snapshots/" + commit
            }
            guard revision.count >= 7, matches.count == 1 else {
                throw fail("no complete snapshot of its revision \(revision)")
            }
            return root + "/snapshots/" + matches[0]
        }
        if let commit = try commit(of: "main", in: root) {
            guard snapshots.contains(commit) else { throw fail("no complete snapshot of it") }
            return root + "/snapshots/" + commit
        }
        guard snapshots.count == 1 else {
            throw fail(snapshots.isEmpty ? "no complete snapshot of it" : "no main branch of it")
        }
        return root + "/snapshots/" + snapshots[0]
    }

    /// The commit that a branch or tag stands for; nil if there is none.
    private func commit(of reference: String, in root: String) throws -> String? {
        guard !reference.isEmpty, !reference.split(separator: "/").contains("..") else { return nil }
        let path = root + "/refs/" + reference
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue
        else { return nil }
        let commit = try TextFile.read(path).trimmingCharacters(in: .whitespacesAndNewlines)
        guard Self.isCommit(commit) else {
            throw FileError.unreadable(
                path: path, reason: "it holds '\(commit.prefix(60))', expected the name of a commit")
        }
        return commit
    }

    /// Whether a name can be that of a snapshot's folder, and leads nowhere else.
    private static func isCommit(_ name: String) -> Bool {
        !name.isEmpty && !name.hasPrefix(".")
            && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "/") }
    }

    private static func isComplete(_ folder: String) -> Bool {
        func has(_ name: String) -> Bool { FileManager.default.fileExists(atPath: folder + "/" + name) }
        return has("config.json") && (has(Checkpoint.singleFile) || has(Checkpoint.indexFile))
    }
}
