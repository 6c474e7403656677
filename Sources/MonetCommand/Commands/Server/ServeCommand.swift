import ArgumentParser
import Foundation
import Logging
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetServer
import MonetText

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve a model over HTTP: OpenAI's interface, and the explorer of its experts.",
        discussion: """
            EXAMPLES
              monet serve --model checkpoints/demo
              monet serve --model checkpoints/demo --index runs/demo.sqlite --mask without-scripture=runs/scripture.mask
              curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "The sea"}'

            Every --mask NAME=FILE is a model of its own, MODEL:NAME. The address is printed on standard output once \
            the server listens; Ctrl-C ends running requests and stops it.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: "Address to listen on.")
    var host = "127.0.0.1"
    @Option(help: "Port to listen on; 0 takes a free one.")
    var port = 8080
    @Option(help: ArgumentHelp("The model's name for clients; by default the folder's.", valueName: "name"))
    var name: String?
    @Option(
        help: ArgumentHelp(
            "A mask as a model of its own, MODEL:NAME; may be repeated.", valueName: "name=file"))
    var mask: [String] = []
    @Option(
        help: ArgumentHelp(
            "A folder of mask files: each is a model too, and the explorer saves masks there.",
            valueName: "dir"))
    var maskDir: String?
    @Option(
        help: ArgumentHelp(
            "An expert index for the explorer; notes and tags are stored in it.", valueName: "path"))
    var index: String?
    @Flag(help: "Open the index for reading only.")
    var readOnly = false
    @Option(
        help: ArgumentHelp(
            "A corpus folder, on whose held-out documents the explorer measures what an edit costs.",
            valueName: "dir"))
    var corpus: String?
    @Option(help: ArgumentHelp("A folder of reports that the explorer shows.", valueName: "dir"))
    var results: String?
    @Option(
        help: ArgumentHelp(
            "A key that clients must send; may be repeated. Can also be set as MONET_API_KEY.",
            valueName: "key"))
    var apiKey: [String] = []
    @Flag(help: "Listen on other addresses than loopback without a key.")
    var withoutKey = false
    @Option(
        help: ArgumentHelp(
            "A web page's origin that may use the server, such as https://example.org; may be repeated.",
            valueName: "origin"))
    var corsOrigin: [String] = []
    @Option(help: "Texts that run at a time.")
    var parallel = 16
    @Option(help: "Texts that may wait; further requests get status 429.")
    var queue = 256
    @Option(help: "Largest body of a request, such as 16MB.")
    var maxBody = ByteCount(16_000_000)
    @Option(help: "Maximum tokens of prompt and answer together; by default the model's context.")
    var context: Int?
    @OptionGroup var cache: CacheOptions
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @Flag(
        inversion: .prefixedNo,
        help: ArgumentHelp(
            "Sum in an order that depends on neither the batch, the chunks of a prompt nor the threads.",
            discussion: "Without it, prompts are read faster, and answers depend on what else is running."))
    var batchInvariant = true
    @OptionGroup var common: CommonOptions

    func validate() throws {
        for (name, value, range) in [
            ("port", port, 0...65535), ("parallel", parallel, 1...1024), ("queue", queue, 0...1_000_000),
            ("context", context ?? 1, 1...Int.max), ("threads", threads ?? 1, 1...1024),
        ] where !range.contains(value) {
            throw ValidationError(
                "--\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        for argument in mask where !argument.contains("=") {
            throw ValidationError("--mask \(argument): expected NAME=FILE")
        }
        if apiKey.contains(where: \.isEmpty) { throw ValidationError("--api-key is empty") }
    }

    private func options() throws -> ServerOptions {
        var options = ServerOptions()
        (options.host, options.port) = (host, port)
        options.apiKeys = apiKey
        if let key = ProcessInfo.processInfo.environment["MONET_API_KEY"], !key.isEmpty {
            options.apiKeys.append(key)
        }
        options.corsOrigins = corsOrigin
        (options.parallel, options.queue) = (parallel, queue)
        options.bodyBytes = maxBody.value
        if options.apiKeys.isEmpty, !withoutKey, !options.isLoopback {
            throw ServerError.unprotected(host: host)
        }
        return options
    }

    func run() async throws {
        let logger = common.logger
        let options = try options()
        let folder = try modelOptions.folder()
        for (option, path) in [("mask-dir", maskDir), ("results", results)] {
            var isFolder: ObjCBool = false
            guard let path,
                !FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) || !isFolder.boolValue
            else { continue }
            throw CommandError.malformedInput(source: "--\(option) \(path)", reason: "it is no folder")
        }
        try Kernels.validateEnvironment()
        let started = ContinuousClock.now
        let server = ModelServer(options: options, logger: logger) { port in
            let host = options.host.contains(":") ? "[\(options.host)]" : options.host
            try? StandardOutput.write("http://\(host):\(port)\n")
        } load: {
            let (model, tokenizer) = try modelOptions.load(logger)
            guard let tokenizer else { throw ServerError.missingTokenizer(folder: folder) }
            let limit = model.configuration.contextLength
            if let context, context > limit {
                throw GenerationError.invalidSetting(
                    name: "context", found: "\(context)", expected: "at most the model's \(limit)")
            }
            var limits = BatchEngine.Limits()
            limits.sequences = options.parallel
            limits.keptPrefixes = max(limits.keptPrefixes, options.parallel)
            let backend = CPUBackend(
                pool: threads.map { WorkerPool(threadCount: $0) } ?? .shared, isBatchInvariant: batchInvariant
            )
            let masks = try mask.map { argument in
                let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                return (
                    name: String(parts[0]),
                    mask: try MaskOptions.read(String(parts[1]), for: model, logger).mask
                )
            }
            var explorer = ExplorerSources()
            explorer.index = try index.map { path in
                let index = try ExpertIndex(path: path, writable: !readOnly)
                try model.accept(index, logger)
                return index
            }
            explorer.corpus = try corpus.map { try Corpus(folder: $0) }
            (explorer.maskFolder, explorer.resultFolder) = (maskDir, results)
            let served = try ServedModel(
                folder: modelOptions.model, name: name, model: model, tokenizer: tokenizer,
                generation: try GenerationService(
                    model: model, tokenizer: tokenizer, backend: backend, limits: limits,
                    contextLength: context, cacheType: cache.kvDtype.dtype),
                backend: backend, contextLength: context, masks: masks, explorer: explorer)
            logger.notice(
                "ready after \((ContinuousClock.now - started).seconds.text(2)) s: \(served.names.joined(separator: ", "))"
            )
            return served
        }
        try await server.run()
    }
}
