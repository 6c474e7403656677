import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Measures a model's speed on random tokens, to compare it with the machine's limits.
public struct InferenceBenchmark {
    /// What to measure, and how often.
    public struct Settings: Sendable {
        /// Prompt tokens in `prefill`, and tokens in the context when `decode` and `batch` begin.
        public var promptTokens = 512
        public var contextTokens = 16
        /// Tokens that each stream decodes.
        public var newTokens = 32
        /// Streams of `batch`.
        public var streams = 8
        /// Medians are over this many runs.
        public var repeats = 3
        public var seed: UInt64 = 0
        public var cacheType = DType.float32

        /// A prompt of 512, 32 new tokens, 8 streams, 3 runs.
        public init() {}
    }

    /// One line of the result.
    public struct Measurement: Sendable {
        /// `prefill`, `decode`, `batch` or `load`.
        public let name: String
        /// Tokens of one run.
        public let tokens: Int
        /// The time of each run.
        public let seconds: [Double]
        /// The operations and bytes that a token needs at least, given the average selection of experts.
        public let work: WorkEstimate?

        /// Median time of a run.
        public var medianSeconds: Double { seconds.sorted()[seconds.count / 2] }
        /// Tokens per second in the median run.
        public var tokensPerSecond: Double { Double(tokens) / medianSeconds }

        /// Joins the numbers.
        public init(name: String, tokens: Int, seconds: [Double], work: WorkEstimate?) {
            self.name = name
            self.tokens = tokens
            self.seconds = seconds
            self.work = work
        }
    }

    private let model: MonetLanguageModel
    private let backend: CPUBackend
    private let settings: Settings
    /// Experts to remove, weaken or amplify.
    public var mask: UnitMask?

    /// Joins a model and a backend.
    public init(model: MonetLanguageModel, backend: CPUBackend, settings: Settings = Settings()) {
        self.model = model
        self.backend = backend
        self.settings = settings
    }

    private func ids(_ count: Int, _ generator: inout SplitMix64) -> [Int32] {
        (0..<count).map { _ in Int32(generator.next() % UInt64(model.configuration.vocabularySize)) }
    }

    private func forward(_ sequences: [[Int32]], _ caches: [KVCache]) throws -> ForwardOutput {
        try model.forward(
            ForwardInput(zip(sequences, caches).map { ForwardSequence($0, cache: $1, mask: mask) }),
            on: backend)
    }

    private func cache() -> KVCache {
        KVCache(configuration: model.configuration, dtype: settings.cacheType)
    }

    /// What can be measured.
    public enum Workload: Sendable {
        /// A prompt in one forward pass, and the logits after its last token.
        case prefill
        /// Several texts, with one token of each per step.
        case decode(streams: Int, name: String)
    }

    /// Measures the workloads with alternating runs, so that changes in the machine's speed affect all alike.
    public func measure(_ workloads: [Workload]) throws -> [Measurement] {
        let runs = try workloads.map { workload in
            switch workload {
            case .prefill: prefill()
            case .decode(let streams, let name): try decode(streams: streams, name: name)
            }
        }
        for run in runs { try run.body(true) }
        var seconds = runs.map { _ in [Double]() }
        for _ in 0..<settings.repeats {
            for (place, run) in runs.enumerated() {
                let start = ContinuousClock.now
                try run.body(false)
                seconds[place].append((ContinuousClock.now - start).seconds)
            }
        }
        return zip(runs, seconds).map { run, seconds in
            Measurement(name: run.name, tokens: run.tokens, seconds: seconds, work: run.work())
        }
    }

    /// A prepared workload.
    private struct Run {
        let name: String
        /// Tokens of one run.
        let tokens: Int
        /// The first call warms up and counts experts, which takes extra time.
        let body: (_ isWarmUp: Bool) throws -> Void
        /// Known after the first call.
        let work: () -> WorkEstimate
    }

    private func prefill() -> Run {
        var generator = SplitMix64(seed: settings.seed)
        var share = 0.0
        let prompt = ids(settings.promptTokens, &generator)
        return Run(name: "prefill", tokens: prompt.count) { isWarmUp in
            let output = try forward([prompt], [cache()])
            let rows = output.hidden.value.shape[0]
            _ = try model.logits(output.hidden.value.slice((rows - 1)..<rows), on: backend)
            if isWarmUp { share = output.activeShare }
        } work: {
            WorkEstimate(
                model, tokens: prompt.count, streams: 1, activeShare: share, unionShare: 1, logits: 1,
                context: prompt.count / 2)
        }
    }

    /// Every step's tokens are random, so that experts vary.
    private func decode(streams: Int, name: String) throws -> Run {
        var generator = SplitMix64(seed: settings.seed + 1)
        let prompts = (0..<streams).map { _ in ids(settings.contextTokens, &generator) }
        var caches = try forward(prompts, prompts.map { _ in cache() }).caches
        var active = 0.0
        var union = 0.0
        return Run(name: name, tokens: streams * settings.newTokens) { isWarmUp in
            for stream in caches.indices { caches[stream].truncate(to: settings.contextTokens) }
            for _ in 0..<settings.newTokens {
                let output = try forward(caches.map { _ in ids(1, &generator) }, caches)
                caches = output.caches
                _ = try model.logits(output.hidden.value, on: backend)
                if isWarmUp {
                    active += output.activeShare / Double(settings.newTokens)
                    union += output.unionShare / Double(settings.newTokens)
                }
            }
        } work: {
            WorkEstimate(
                model, tokens: streams, streams: streams, activeShare: active, unionShare: union,
                logits: streams, context: settings.contextTokens + settings.newTokens / 2)
        }
    }
}
