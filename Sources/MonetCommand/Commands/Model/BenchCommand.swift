import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetTraining

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure speed, and compare it with the limits of this machine.",
        discussion: """
            EXAMPLES
              monet bench --model checkpoints/demo
              monet bench --model checkpoints/big --tests decode,batch --streams 8 --json
              monet bench --tests train --preset small-vd --vocab-size 8192

            Reports medians over --repeats runs on random tokens; runs of decode and batch alternate. The \
            "floor" is the shortest possible time: the larger of operations divided by the measured peak of \
            this machine and bytes divided by its measured memory bandwidth. "of floor" is the share of this \
            speed that was reached. load measures the time from the start of reading to the first token.
            """)

    enum Test: String, CaseIterable, ExpressibleByArgument {
        case load, prefill, decode, batch, train
    }

    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("Checkpoint folder or hub name; not needed for train alone.", valueName: "dir"))
    var model: String?
    @Option(
        help: ArgumentHelp(
            "Tests, separated by commas: load, prefill, decode, batch, train; by default all but train.",
            valueName: "list"))
    var tests: String?
    @Option(
        help: "Tokens of the prompt in prefill; by default 512, or the model's context if that is shorter.")
    var promptTokens: Int?
    @Option(help: "Tokens that precede decoding.")
    var contextTokens = 16
    @Option(help: "Tokens that each stream decodes.")
    var newTokens = 32
    @Option(help: "Streams in the batch test.")
    var streams = 8
    @Option(help: "Runs of each test; the median is reported.")
    var repeats = 3
    @OptionGroup var cache: CacheOptions
    @OptionGroup var masking: MaskOptions
    @Option(help: "Remove a random share of each group's experts, such as 0.05.")
    var maskShare: Double?
    @Option(help: "Preset of the model in the train test.")
    var preset: PresetName?
    @Option(help: "Vocabulary size in the train test.")
    var vocabSize: Int?
    @Option(help: "Sequences per batch in the train test.")
    var batchSize = 8
    @Option(help: "Tokens per sequence in the train test.")
    var sequenceLength = 256
    @Option(help: "Seed of the random tokens and weights.")
    var seed: UInt64 = 0
    @Flag(help: "Print the result as JSON.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    private func chosen() throws -> [Test] {
        guard let tests else { return model == nil ? [.train] : [.load, .prefill, .decode, .batch] }
        return try tests.split(separator: ",").map {
            guard let test = Test(rawValue: $0.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError(
                    "--tests names '\($0)', expected of \(Test.allCases.map(\.rawValue).joined(separator: ", "))"
                )
            }
            return test
        }
    }

    func validate() throws {
        if let vocabSize, !(3...1 << 24).contains(vocabSize) {
            throw ValidationError("--vocab-size is \(vocabSize), expected 3 to \(1 << 24)")
        }
        let tests = try chosen()
        if tests.contains(where: { $0 != .train }), model == nil {
            throw ValidationError("Give --model, or --tests train.")
        }
        for (name, value) in [
            ("prompt-tokens", promptTokens ?? 512), ("context-tokens", contextTokens),
            ("new-tokens", newTokens),
            ("streams", streams), ("repeats", repeats), ("batch-size", batchSize),
            ("sequence-length", sequenceLength),
        ] where !(1...1 << 20).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 to \(1 << 20)")
        }
        if let maskShare, !(0...1).contains(maskShare) {
            throw ValidationError("--mask-share is \(maskShare), expected 0 to 1")
        }
        if !masking.mask.isEmpty, maskShare != nil {
            throw ValidationError("Give one of --mask and --mask-share.")
        }
    }

    func run() throws {
        let tests = try chosen()
        let backend = try compute.backend(precision: compute.dtype ?? precisionOfWeights())
        let peak = try MachinePeak(on: backend)
        var results: [InferenceBenchmark.Measurement] = []
        func note(_ text: String) { if !common.quiet { StandardError.write(text + "\n") } }
        note(
            "\(backend.name): \((peak.operationsPerSecond / 1e9).text(0)) GFLOP/s in dense products, "
                + "\((peak.bytesPerSecond / 1e9).text(1)) GB/s from memory")
        if let model, tests.contains(where: { $0 != .train }) {
            results += try measureModel(model, tests, backend, note)
        }
        if tests.contains(.train) { results.append(try measureTraining(backend, note)) }
        let report = BenchmarkReport(backend: backend.name, peak: peak, measurements: results)
        try StandardOutput.write(
            json ? report.json(model: model).serialized(pretty: true) + "\n" : table(report))
    }

    /// bfloat16 for a bfloat16 checkpoint on processors where that is fast, as in PyTorch.
    private func precisionOfWeights() throws -> ComputePrecision {
        guard let model else { return .float32 }
        return .ofWeights(try Checkpoint.configuration(try HubCache().resolve(model)))
    }

    private func measureModel(
        _ name: String, _ tests: [Test], _ backend: CPUBackend, _ note: (String) -> Void
    ) throws -> [InferenceBenchmark.Measurement] {
        let folder = try HubCache().resolve(name)
        var results: [InferenceBenchmark.Measurement] = []
        if tests.contains(.load) {
            note("load")
            results.append(try InferenceBenchmark.load(folder, backend: backend, repeats: repeats))
        }
        if tests.allSatisfy({ $0 == .load || $0 == .train }) { return results }
        let model = try MonetLanguageModel.load(folder, on: backend)
        let context = model.configuration.contextLength
        let promptTokens = promptTokens ?? min(512, context)
        let longest = max(promptTokens, contextTokens + newTokens)
        guard longest <= context else { throw ModelError.contextExceeded(tokens: longest, context: context) }
        var settings = InferenceBenchmark.Settings()
        settings.promptTokens = promptTokens
        settings.contextTokens = contextTokens
        settings.newTokens = newTokens
        settings.streams = streams
        settings.repeats = repeats
        settings.seed = seed
        settings.cacheType = cache.kvDtype.dtype
        var benchmark = InferenceBenchmark(model: model, backend: backend, settings: settings)
        if let mask = try masking.load(for: model, common.logger) {
            benchmark.mask = mask
        } else if let maskShare {
            benchmark.mask = UnitMask.random(
                share: maskShare, of: model.units, seed: seed)
        }
        if tests.contains(.prefill) {
            note("prefill")
            results += try benchmark.measure([.prefill])
        }
        let decoding = tests.compactMap { test -> InferenceBenchmark.Workload? in
            switch test {
            case .decode: .decode(streams: 1, name: test.rawValue)
            case .batch: .decode(streams: streams, name: test.rawValue)
            case .load, .prefill, .train: nil
            }
        }
        let names = tests.filter { $0 == .decode || $0 == .batch }.map(\.rawValue)
        if !names.isEmpty { note(names.joined(separator: " and ") + (names.count > 1 ? ", in turns" : "")) }
        return results + (try benchmark.measure(decoding))
    }

    private func measureTraining(_ backend: CPUBackend, _ note: (String) -> Void) throws
        -> InferenceBenchmark.Measurement
    {
        note("train")
        var configuration = try preset?.configuration ?? MonetConfiguration.preset("small-vd")
        if let vocabSize { configuration.vocabularySize = vocabSize }
        try configuration.validate()
        let benchmark = TrainingBenchmark(
            configuration: configuration, backend: backend, sequences: batchSize, length: sequenceLength)
        return .init(
            name: "train", tokens: batchSize * sequenceLength,
            seconds: try benchmark.run(steps: repeats, seed: seed),
            work: nil)
    }

    private func table(_ report: BenchmarkReport) -> String {
        alignedTable(
            [
                [
                    "test", "tokens/s", "seconds", "GFLOP/token", "MB/token", "active experts", "bound by",
                    "of floor",
                ]
            ]
                + report.measurements.map { result in
                    let head = [
                        result.name, result.name == "load" ? "" : result.tokensPerSecond.text(2),
                        result.medianSeconds.text(3),
                    ]
                    guard let work = result.work else { return head }
                    let floor = report.floor(work)
                    return head + [
                        (work.operationsPerToken / 1e9).significant, (work.bytesPerToken / 1e6).significant,
                        (100 * work.activeShare).text(1) + "%", floor.bound.rawValue,
                        (100 * floor.seconds * result.tokensPerSecond).text(0) + "%",
                    ]
                })
    }
}
