import Foundation
import MonetFoundation
import MonetModel

/// Downloads a checkpoint of the Hugging Face hub into the cache that Hugging Face's tools use.
///
///     let download = try HubDownload("MonetLLM/monet-vd-850M-100BT-hf")
///     let folder = try download.run { progress in true }
///
/// Files are stored by their hash and linked from the revision's snapshot. A download that was interrupted continues
/// where it ended. Every file's hash is checked.
public struct HubDownload: Sendable {
    /// The hub and how to reach it.
    public struct Settings: Sendable {
        /// The hub's address.
        public var endpoint = "https://huggingface.co"
        /// Sent to the hub, and to no other host.
        public var token: String?
        /// Whether downloads are forbidden.
        public var isOffline = false
        /// Attempts at each request.
        public var attempts = 6
        /// Seconds before the second attempt, doubled before each further one.
        public var backOff = 1.0
        /// Seconds without any byte after which a connection counts as lost.
        public var timeout = 30.0

        /// The settings of Hugging Face's variables: `HF_ENDPOINT`, `HF_TOKEN` or the token file of `HF_HOME`, and
        /// `HF_HUB_OFFLINE`.
        public init(environment: [String: String] = ProcessInfo.processInfo.environment) {
            func variable(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
            if let given = variable("HF_ENDPOINT") {
                endpoint = given.hasSuffix("/") ? String(given.dropLast()) : given
            }
            let home = variable("HF_HOME") ?? (variable("HOME") ?? NSHomeDirectory()) + "/.cache/huggingface"
            token =
                variable("HF_TOKEN")
                ?? (try? TextFile.read(variable("HF_TOKEN_PATH") ?? home + "/token"))?
                .trimmingCharacters(in: .whitespacesAndNewlines)
            isOffline = ["1", "on", "yes", "true"].contains((variable("HF_HUB_OFFLINE") ?? "").lowercased())
        }
    }

    /// How far a download is.
    public struct Progress: Sendable {
        /// The file that is loaded, its place among all, and their number.
        public let file: String
        public let place: Int
        public let files: Int
        /// Bytes of the file so far, and all.
        public let done: Int
        public let total: Int
        /// Bytes that arrived since the download began, and seconds.
        public let arrived: Int
        public let seconds: Double
    }

    private let name: String
    private let revision: String
    private let cache: HubCache
    private let settings: Settings
    private let takesAll: Bool

    /// - Parameters:
    ///   - name: `ORG/NAME`.
    ///   - takesAll: whether files that this package does not read are downloaded too.
    /// - Throws: `HubError.invalidName`, `HubError.offline`.
    public init(
        _ name: String, revision: String = "main", cache: HubCache = HubCache(),
        settings: Settings = Settings(), takesAll: Bool = false
    ) throws {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ Self.isWord($0) }) else {
            throw HubError.invalidName(name)
        }
        guard !revision.isEmpty, revision.split(separator: "/").allSatisfy({ Self.isWord($0) }) else {
            throw HubError.notFound(what: "revision '\(revision)' of \(name)")
        }
        guard !settings.isOffline else { throw HubError.offline }
        (self.name, self.revision, self.cache, self.settings) = (name, revision, cache, settings)
        self.takesAll = takesAll
    }

    private static func isWord(_ text: some StringProtocol) -> Bool {
        !text.isEmpty && text.first != "."
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && !"/\\?#%".utf8.contains($0) }
    }

    /// Downloads what is missing.
    ///
    /// - `progress`: called often; false stops, and what has arrived is kept.
    /// - Returns: the snapshot's folder.
    /// - Throws: `HubError`, `FileError`, `CancellationError`.
    public func run(_ progress: @escaping @Sendable (Progress) -> Bool = { _ in true }) throws -> String {
        let hub = HubConnection(settings: settings)
        let (commit, all) = try contents(hub)
        let files = takesAll ? all : all.filter(Self.isRead)
        guard files.contains("config.json"), files.contains(where: { $0.hasSuffix(".safetensors") }) else {
            throw HubError.noCheckpoint(name: name, files: all)
        }
        let root = cache.folder + "/models--" + name.replacingOccurrences(of: "/", with: "--")
        let snapshot = root + "/snapshots/" + commit
        for folder in [root + "/blobs", root + "/refs", snapshot] { try AtomicFile.createFolder(folder) }
        let began = ContinuousClock.now
        var arrived = 0
        // The configuration comes last: a snapshot without it is incomplete to every reader.
        let ordered = files.filter { $0 != "config.json" } + ["config.json"]
        for (place, file) in ordered.enumerated() {
            try link(file, of: commit, hub, root, snapshot) { done, total, new in
                arrived += new
                return progress(
                    Progress(
                        file: file, place: place, files: ordered.count, done: done, total: total,
                        arrived: arrived,
                        seconds: (.now - began).seconds))
            }
        }
        if revision != commit {
            let reference = root + "/refs/" + revision
            try AtomicFile.createFolder((reference as NSString).deletingLastPathComponent)
            try AtomicFile.write(commit, to: reference)
        }
        return snapshot
    }

    /// Files of a checkpoint that this package reads, and its documents.
    private static func isRead(_ file: String) -> Bool {
        guard !file.contains("/") else { return false }
        return [".safetensors", ".safetensors.index.json", ".py", ".md", ".jinja"].contains {
            file.hasSuffix($0)
        }
            || [
                "config.json", "generation_config.json", "tokenizer.model", "tokenizer.json",
                "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "LICENSE",
            ].contains(file)
    }

    private func contents(_ hub: HubConnection) throws -> (commit: String, files: [String]) {
        let url = "\(settings.endpoint)/api/models/\(name)/revision/\(revision)"
        let answer = try hub.text(url, named: name, missing: "model \(name) with a revision '\(revision)'")
        let json = try JSONValue(parsing: answer, source: url)
        guard let commit = json["sha"]?.stringValue, Self.isWord(commit),
            let list = json["siblings"]?.arrayValue
        else {
            throw HubError.failed(
                url: url, attempts: 1, reason: "the answer has no \"sha\" or no \"siblings\"")
        }
        let files = try list.compactMap { $0["rfilename"]?.stringValue }.map { file in
            let parts = file.split(separator: "/", omittingEmptySubsequences: false)
            guard
                parts.allSatisfy({
                    !$0.isEmpty && $0 != "." && $0 != ".." && !$0.contains("\\") && !$0.contains("\0")
                })
            else { throw HubError.invalidFile(name: file) }
            return file
        }
        return (commit, files)
    }

    /// Makes a file of the snapshot a link to its content, which is downloaded unless it is there.
    private func link(
        _ file: String, of commit: String, _ hub: HubConnection, _ root: String, _ snapshot: String,
        _ progress: (_ done: Int, _ total: Int, _ new: Int) -> Bool
    ) throws {
        let escaped = file.split(separator: "/").map {
            $0.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed) ?? String($0)
        }.joined(separator: "/")
        let url = "\(settings.endpoint)/\(name)/resolve/\(commit)/\(escaped)"
        func described() throws -> HubConnection.File {
            try hub.metadata(url, named: name, missing: "file \(file) in \(name)")
        }
        let found = try described()
        guard Self.isWord(found.etag) else {
            throw HubError.failed(
                url: url, attempts: 1, reason: "the answer's ETag is '\(found.etag.prefix(80))'")
        }
        let blob = root + "/blobs/" + found.etag
        let size = (try? FileManager.default.attributesOfItem(atPath: blob)[.size] as? Int) ?? nil
        if size == nil || size != found.size {
            try hub.download(found, to: blob, named: file, again: described, progress)
        } else if !progress(found.size, found.size, 0) {
            throw CancellationError()
        }
        let path = snapshot + "/" + file
        try AtomicFile.createFolder((path as NSString).deletingLastPathComponent)
        let up = String(repeating: "../", count: 2 + file.split(separator: "/").count - 1)
        // Beside its place and renamed, so that a reader never finds half a snapshot under this name.
        let temporary = path + ".link-\(getpid())"
        unlink(temporary)
        guard symlink(up + "blobs/" + found.etag, temporary) == 0, rename(temporary, path) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            throw FileError.unwritable(path: path, reason: reason)
        }
    }
}
