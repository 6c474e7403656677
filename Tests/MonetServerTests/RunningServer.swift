import Foundation
import Logging
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetServer
import MonetText
import Synchronization
import TestSupport

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// A real server on a free port of this machine, with a small model, an index and masks.
final class RunningServer: Sendable {
    let address: String
    let served: ServedModel
    let folder: String
    private let task: Task<Void, any Error>

    struct Answer {
        let status: Int
        let headers: [String: String]
        let text: String

        var json: JSONValue { (try? JSONValue(parsing: text, source: "the answer")) ?? .null }
        /// What the error object says of the key that is wrong.
        var param: String? { json["error"]?["param"]?.stringValue }
        /// The objects of a stream.
        var events: [JSONValue] {
            text.split(separator: "\n").filter { $0.hasPrefix("data: {") }.compactMap {
                try? JSONValue(parsing: String($0.dropFirst(6)), source: "an event")
            }
        }
    }

    static func model() throws -> (model: MonetLanguageModel, tokenizer: Tokenizer) {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var configuration = smallConfiguration(.vertical)
        configuration.vocabularySize = tokenizer.vocabularySize
        return (try scrambledModel(configuration, seed: 21), tokenizer)
    }

    init(withIndex: Bool = false, _ change: (inout ServerOptions) -> Void = { _ in }) async throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("monet-server-\(UUID())").path
        try FileManager.default.createDirectory(atPath: folder + "/masks", withIntermediateDirectories: true)
        let (model, tokenizer) = try Self.model()
        var options = ServerOptions()
        options.port = 0
        options.stopSeconds = 2
        change(&options)
        var limits = BatchEngine.Limits()
        limits.sequences = options.parallel
        limits.promptTokensPerStep = 16
        var mask = UnitMask(model.units)
        mask.remove(0..<60, group: 0)
        let backend = CPUBackend(isBatchInvariant: true)
        var explorer = ExplorerSources()
        explorer.maskFolder = folder + "/masks"
        if withIndex { explorer.index = try Self.index(model, tokenizer, folder + "/index.sqlite") }
        // Attribution reads the checkpoint again.
        try FileManager.default.createDirectory(
            atPath: folder + "/checkpoint", withIntermediateDirectories: true)
        try Checkpoint.write(model, dtype: .float32, to: folder + "/checkpoint")
        let served = try ServedModel(
            folder: folder + "/checkpoint", name: "small", model: model, tokenizer: tokenizer,
            generation: GenerationService(
                model: model, tokenizer: tokenizer, backend: backend, limits: limits),
            backend: backend, masks: [("without <b>some</b>", mask)], explorer: explorer)
        self.served = served
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let (ports, continuation) = AsyncStream<Int>.makeStream()
        let server = ModelServer(options: options, logger: logger) {
            continuation.yield($0)
        } load: {
            served
        }
        task = Task { try await server.run() }
        var iterator = ports.makeAsyncIterator()
        guard let port = await iterator.next() else { throw CancellationError() }
        address = "http://127.0.0.1:\(port)"
        for _ in 0..<200 {
            if try await get("/health").status == 200 { return }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    private static func index(_ model: MonetLanguageModel, _ tokenizer: Tokenizer, _ path: String) throws
        -> ExpertIndex
    {
        let texts = ["the sea and the shark", "def main ( ) : return 1", "<script>alert(1)</script> the end"]
        let documents = LabelledDocuments(
            tokens: try texts.map { try tokenizer.encode($0) }, origin: "the test")
        var settings = ExpertIndexBuilder.Settings()
        settings.window = 12
        _ = try ExpertIndexBuilder(
            model: model, modelPath: "none", tokenizer: tokenizer, documents: documents, settings: settings,
            backend: CPUBackend()
        ).build(at: path)
        return try ExpertIndex(path: path, model: model, writable: true)
    }

    deinit {
        task.cancel()
        served.generation.stop()
        try? FileManager.default.removeItem(atPath: folder)
    }

    func get(_ path: String, headers: [String: String] = [:]) async throws -> Answer {
        try await send("GET", path, nil, headers)
    }

    func post(_ path: String, _ body: JSONValue, headers: [String: String] = [:]) async throws -> Answer {
        try await send("POST", path, Data(body.serialized().utf8), headers)
    }

    func send(_ method: String, _ path: String, _ body: Data?, _ headers: [String: String]) async throws
        -> Answer
    {
        guard let url = URL(string: address + path) else { throw CancellationError() }
        var request = URLRequest(url: url)
        request.httpMethod = method
        // Other tests may have the machine's few threads for minutes.
        request.timeoutInterval = 600
        request.httpBody = body
        if body != nil { request.setValue("application/json", forHTTPHeaderField: "Content-Type") }
        for (name, value) in headers { request.setValue(value, forHTTPHeaderField: name) }
        let (data, response) = try await URLSession.shared.data(for: request)
        let answer = response as? HTTPURLResponse
        var fields: [String: String] = [:]
        for (key, value) in answer?.allHeaderFields ?? [:] { fields["\(key)".lowercased()] = "\(value)" }
        return Answer(
            status: answer?.statusCode ?? 0, headers: fields, text: String(decoding: data, as: UTF8.self))
    }
}
