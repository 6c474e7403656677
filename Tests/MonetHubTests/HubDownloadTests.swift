import Crypto
import Foundation
import MonetFoundation
import MonetHub
import MonetModel
import Synchronization
import TestSupport
import Testing

/// Downloads from servers that speak the hub's interface, on this machine.
@Suite struct HubDownloadTests {
    /// Requests by kind.
    private final class Counts: Sendable {
        let values = Mutex<[String: Int]>([:])
    }

    /// A hub with one repository, and another host for its large files.
    private final class Hub: Sendable {
        /// How the servers misbehave.
        struct Faults: Sendable {
            /// Bytes after which the first connections for a file are cut.
            var cuts: [Int] = []
            /// Whether ranges are answered.
            var answersRanges = true
            /// Statuses of the first answers, before the right ones.
            var statuses: [Int] = []
            /// Sent instead of the file of this name.
            var spoiled: String?
        }

        let hub: ScriptedServer
        let storage: ScriptedServer
        static let commit = "0123456789abcdef0123456789abcdef01234567"
        static let weights = String(repeating: "weights ", count: 40_000)
        static let files = [
            "config.json": "{\"a\": 1}", "model.safetensors": weights, "README.md": "# A model",
            "pytorch_model.bin": "not wanted",
        ]

        init(_ faults: Faults = Faults(), token: String? = nil, siblings: [String]? = nil) throws {
            let counts = Counts()
            @Sendable func count(_ key: String) -> Int {
                counts.values.withLock { counts in
                    counts[key, default: 0] += 1
                    return counts[key, default: 0] - 1
                }
            }
            let storage = try ScriptedServer { request, _ in
                var body = Hub.weights
                if faults.spoiled == "model.safetensors" { body = String(body.dropLast()) + "!" }
                let place = count("storage")
                if let range = request.headers["range"], faults.answersRanges {
                    let from = Int(range.dropFirst("bytes=".count).dropLast()) ?? 0
                    let rest = String(decoding: Array(body.utf8)[from...], as: UTF8.self)
                    return .init(
                        status: 206,
                        headers: ["Content-Range": "bytes \(from)-\(body.utf8.count - 1)/\(body.utf8.count)"],
                        body: rest, cut: place < faults.cuts.count ? faults.cuts[place] : nil)
                }
                return .init(body: body, cut: place < faults.cuts.count ? faults.cuts[place] : nil)
            }
            self.storage = storage
            let elsewhere = storage.address
            hub = try ScriptedServer { request, number in
                if number < faults.statuses.count {
                    return .init(status: faults.statuses[number], headers: ["Retry-After": "0"])
                }
                if let token, request.headers["authorization"] != "Bearer \(token)" {
                    return .init(status: 401)
                }
                let repository = "/ORG/NAME/resolve/\(Hub.commit)/"
                if request.target.hasPrefix("/api/models/ORG/NAME/revision/main") {
                    let list = (siblings ?? Hub.files.keys.sorted()).map { "{\"rfilename\": \"\($0)\"}" }
                    return .init(
                        body: "{\"sha\": \"\(Hub.commit)\", \"siblings\": [\(list.joined(separator: ", "))]}")
                }
                guard request.target.hasPrefix(repository),
                    let body = Hub.files[String(request.target.dropFirst(repository.count))]
                else { return .init(status: 404) }
                if request.target.hasSuffix(".safetensors") {
                    return .init(
                        status: 302,
                        headers: [
                            "Location": elsewhere + "/signed?key=secret",
                            "X-Linked-Etag": "\"\(Hub.sha256(body))\"",
                            "X-Linked-Size": "\(body.utf8.count)", "ETag": "\"other\"",
                        ])
                }
                let isSpoiled =
                    request.method == "GET" && request.target.hasSuffix("/" + (faults.spoiled ?? "?"))
                return .init(
                    headers: ["ETag": "\"\(Hub.gitHash(body))\""],
                    body: isSpoiled ? String(repeating: "?", count: body.utf8.count) : body)
            }
        }

        deinit {
            hub.stop()
            storage.stop()
        }

        static func sha256(_ text: String) -> String { hex(SHA256.hash(data: Data(text.utf8))) }
        static func gitHash(_ text: String) -> String {
            hex(Insecure.SHA1.hash(data: Data("blob \(text.utf8.count)\0\(text)".utf8)))
        }
        private static func hex(_ bytes: some Sequence<UInt8>) -> String {
            bytes.map { String(format: "%02x", $0) }.joined()
        }
    }

    private func download(
        _ hub: Hub, into folder: String, token: String? = nil, revision: String = "main",
        progress: @escaping @Sendable (HubDownload.Progress) -> Bool = { _ in true }
    ) throws -> String {
        var settings = HubDownload.Settings(environment: ["HF_ENDPOINT": hub.hub.address, "HOME": folder])
        settings.token = token
        (settings.backOff, settings.attempts, settings.timeout) = (0.01, 4, 5)
        return try HubDownload(
            "ORG/NAME", revision: revision, cache: HubCache(environment: ["HF_HUB_CACHE": folder]),
            settings: settings
        ).run(progress)
    }

    /// The cache is the one that Hugging Face's tools make: blobs by hash, links, references.
    @Test func filesAreStoredByHashAndLinked() throws {
        try withTemporaryFolder { folder -> Void in
            let hub = try Hub(token: "hf_right")
            let snapshot = try download(hub, into: folder, token: "hf_right")
            #expect(snapshot == folder + "/models--ORG--NAME/snapshots/" + Hub.commit)
            for name in ["config.json", "model.safetensors", "README.md"] {
                let content = FileManager.default.contents(atPath: snapshot + "/" + name)
                #expect(content.map { String(decoding: $0, as: UTF8.self) } == Hub.files[name])
                let target = try FileManager.default.destinationOfSymbolicLink(atPath: snapshot + "/" + name)
                #expect(target.hasPrefix("../../blobs/"))
            }
            #expect(!FileManager.default.fileExists(atPath: snapshot + "/pytorch_model.bin"))
            let blob = folder + "/models--ORG--NAME/blobs/" + Hub.sha256(Hub.weights)
            #expect(FileManager.default.fileExists(atPath: blob))
            #expect(try TextFile.read(folder + "/models--ORG--NAME/refs/main") == Hub.commit)
            #expect(try HubCache(environment: ["HF_HUB_CACHE": folder]).resolve("ORG/NAME") == snapshot)
            // Only the hub gets the token.
            #expect(hub.hub.requests.allSatisfy { $0.headers["authorization"] == "Bearer hf_right" })
            #expect(!hub.storage.requests.isEmpty)
            #expect(hub.storage.requests.allSatisfy { $0.headers["authorization"] == nil })
            // Nothing is loaded twice.
            let before = hub.storage.requests.count
            _ = try download(hub, into: folder, token: "hf_right")
            #expect(hub.storage.requests.count == before)
        }
    }

    /// A connection that is cut continues from where it ended, or from the beginning if the host cannot.
    @Test(arguments: [true, false])
    func cutConnectionsContinue(answersRanges: Bool) throws {
        try withTemporaryFolder { folder -> Void in
            var faults = Hub.Faults()
            (faults.cuts, faults.answersRanges) = ([100_000, 50_000, 1], answersRanges)
            let hub = try Hub(faults)
            let snapshot = try download(hub, into: folder)
            let content = FileManager.default.contents(atPath: snapshot + "/model.safetensors")
            #expect(content.map { String(decoding: $0, as: UTF8.self) } == Hub.weights)
            let ranges = hub.storage.requests.compactMap { $0.headers["range"] }
            #expect(ranges.first?.hasPrefix("bytes=") ?? false)
            let leftovers = try FileManager.default.contentsOfDirectory(
                atPath: folder + "/models--ORG--NAME/blobs")
            #expect(!leftovers.contains { $0.hasSuffix(".incomplete") })
        }
    }

    /// Stopped by the user, it continues with what has arrived.
    @Test func interruptedDownloadsContinue() throws {
        try withTemporaryFolder { folder -> Void in
            let hub = try Hub()
            #expect(throws: CancellationError.self) {
                try download(hub, into: folder) { !($0.file == "model.safetensors" && $0.done > 0) }
            }
            #expect(throws: FileError.self) {
                try HubCache(environment: ["HF_HUB_CACHE": folder]).resolve("ORG/NAME")
            }
            let snapshot = try download(hub, into: folder)
            #expect(try HubCache(environment: ["HF_HUB_CACHE": folder]).resolve("ORG/NAME") == snapshot)
        }
    }

    @Test(arguments: ["model.safetensors", "config.json"])
    func damagedFilesAreRefused(name: String) throws {
        try withTemporaryFolder { folder -> Void in
            var faults = Hub.Faults()
            faults.spoiled = name
            let error = #expect(throws: HubError.self) { try download(Hub(faults), into: folder) }
            guard case .wrongContent(let file, _, _) = try #require(error) else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(file == name)
            let blobs = try FileManager.default.contentsOfDirectory(
                atPath: folder + "/models--ORG--NAME/blobs")
            #expect(!blobs.contains { $0.hasSuffix(".incomplete") })
            #expect(throws: FileError.self) {
                try HubCache(environment: ["HF_HUB_CACHE": folder]).resolve("ORG/NAME")
            }
        }
    }

    @Test func busyHubsAreAskedAgain() throws {
        try withTemporaryFolder { folder -> Void in
            var faults = Hub.Faults()
            faults.statuses = [429, 503, 500]
            _ = try download(Hub(faults), into: folder)
            faults.statuses = Array(repeating: 503, count: 4)
            let hub = try Hub(faults)
            let error = #expect(throws: HubError.self) { try download(hub, into: folder + "/other") }
            #expect("\(try #require(error))".contains("after 4 attempts"))
            #expect(hub.hub.requests.count == 4)
        }
    }

    @Test func refusalsSayWhatToDo() throws {
        try withTemporaryFolder { folder -> Void in
            let closed = try Hub(token: "hf_right")
            #expect(throws: HubError.notAllowed(name: "ORG/NAME", status: 401, hasToken: false)) {
                try download(closed, into: folder)
            }
            #expect(throws: HubError.notAllowed(name: "ORG/NAME", status: 401, hasToken: true)) {
                try download(closed, into: folder, token: "hf_wrong")
            }
            let open = try Hub()
            #expect(throws: HubError.notFound(what: "model ORG/NAME with a revision 'v2'")) {
                try download(open, into: folder, revision: "v2")
            }
            #expect(throws: HubError.noCheckpoint(name: "ORG/NAME", files: ["README.md"])) {
                try download(Hub(siblings: ["README.md"]), into: folder)
            }
            for name in ["../../etc/passwd", "a//b", "/etc/passwd", "a/../../b"] {
                #expect(throws: HubError.invalidFile(name: name)) {
                    try download(Hub(siblings: ["config.json", name]), into: folder)
                }
            }
            for name in ["name", "a/b/c", "../x", "a/", "a b/c", "a/..", "a/b?c"] {
                #expect(throws: HubError.invalidName(name)) {
                    try HubDownload(name, settings: HubDownload.Settings(environment: [:]))
                }
            }
            #expect(throws: HubError.offline) {
                try HubDownload("a/b", settings: HubDownload.Settings(environment: ["HF_HUB_OFFLINE": "1"]))
            }
        }
    }

    @Test func settingsAreThoseOfHuggingFace() throws {
        try withTemporaryFolder { folder in
            try AtomicFile.write("hf_file\n", to: folder + "/token")
            var settings = HubDownload.Settings(environment: ["HF_HOME": folder, "HF_ENDPOINT": "http://h/"])
            #expect(settings.token == "hf_file" && settings.endpoint == "http://h" && !settings.isOffline)
            settings = HubDownload.Settings(environment: [
                "HF_TOKEN": "hf_own", "HF_HOME": folder, "HF_HUB_OFFLINE": "YES",
            ])
            #expect(settings.token == "hf_own" && settings.isOffline)
            #expect(settings.endpoint == "https://huggingface.co")
        }
    }
}
