import Foundation
import MonetFoundation
import MonetInsight

/// The contexts from which an expert is explained, and those by which an explanation is scored.
public struct ExplanationTask: Sendable {
    /// What to show and to ask.
    public struct Settings: Sendable {
        /// Contexts with the largest scores that the explainer reads.
        public var top = 10
        /// Contexts of other scores, drawn where they are common.
        public var samples = 5
        /// Held-out tokens to judge, half of them with the expert firing.
        public var routed = 20
        /// Tokens before and after each.
        public var reach = 12
        /// The seed of all draws.
        public var seed: UInt64 = 0

        /// 15 contexts to read, 20 tokens to judge.
        public init() {}
    }

    /// The expert.
    public let expert: UnitID
    /// What the explainer reads.
    public let shown: [ScoredContext]
    /// Contexts of which some fire the expert: 2 of the strongest and 2 others, which the explainer has not read, and 10
    /// without a firing token, shuffled.
    public let detection: [ScoredContext]
    /// Tokens of held-out text, half of them with the expert firing, shuffled.
    public let routing: [ScoredContext]

    /// Draws the contexts.
    ///
    /// - `dossier`: with measured contexts (`ExpertIndex.measureContexts`).
    /// - `heldOut`: documents that the index was not built from.
    public init(_ dossier: ExpertDossier, heldOut: ScoredDocuments, settings: Settings = Settings()) {
        expert = dossier.expert
        var generator = SplitMix64(
            seed: settings.seed ^ StableHash.of(dossier.expert.description))
        var top = dossier.activations.compactMap(\.scored)
        // Bands of scores hold equally many samples; drawing them by their bands' counts gives what is common.
        let bands = dossier.samples.map { (count: $0.count, contexts: $0.activations.compactMap(\.scored)) }
        var samples = bands.flatMap { band in
            band.contexts.map {
                (key: -log(1 - generator.nextUnit()) / Double(max(1, band.count)), context: $0)
            }
        }.sorted { $0.key < $1.key }.map(\.context)
        samples.removeAll { top.contains($0) }
        let topTests = Self.take(2, from: &top, leaving: settings.top)
        let sampleTests = Self.take(2, from: &samples, leaving: settings.samples)
        shown = Array(top.prefix(settings.top) + samples.prefix(settings.samples))
        let fired = topTests + sampleTests
        let silent = heldOut.silent(
            expert, count: 14 - fired.count, reach: settings.reach, everywhere: true, using: &generator)
        detection = (fired + silent).shuffled(using: &generator)
        let routed = heldOut.firing(
            expert, count: settings.routed / 2, reach: settings.reach, using: &generator)
        let others = heldOut.silent(
            expert, count: routed.count, reach: settings.reach, everywhere: false, using: &generator)
        routing = (routed + others).shuffled(using: &generator)
    }

    /// Contexts for a test: the explainer keeps `leaving` of them, and gives way only if there are fewer.
    private static func take(_ count: Int, from contexts: inout [ScoredContext], leaving: Int)
        -> [ScoredContext]
    {
        let taken = min(count, max(contexts.count - leaving, contexts.count / 3))
        defer { contexts.removeLast(taken) }
        return Array(contexts.suffix(taken))
    }

    /// Whether there is something to read and to judge.
    public var isUsable: Bool { !shown.isEmpty && detection.contains(where: \.fires) }

    /// The texts of the detection test.
    var detectionTexts: [String] { detection.map { $0.text { _ in false } } }
    /// The texts of the routing test, with the token to judge marked.
    var routingTexts: [String] { routing.map { context in context.text { $0 == context.place } } }

    /// Requests that explaining and scoring take.
    public var requestCount: Int { routing.isEmpty ? 2 : 3 }

    /// Bytes of all prompts, without the explanations that scoring repeats.
    public var promptBytes: Int {
        var prompts = [
            ExplanationServer.explanationPrompt(shown),
            ExplanationServer.judgementPrompt(detectionTexts, explanation: "", marked: false),
        ]
        if !routing.isEmpty {
            prompts.append(ExplanationServer.judgementPrompt(routingTexts, explanation: "", marked: true))
        }
        return prompts.reduce(0) { $0 + $1.utf8.count }
    }
}

/// How judgements agree with what the expert does.
public struct JudgementScore: Sendable, Equatable {
    /// Right ones, and all.
    public let hits: Int
    public let count: Int
    /// Share of the firing texts that were judged so, and of the others; nil without any.
    public let sensitivity: Double?
    public let specificity: Double?

    /// Compares judgements with the truth.
    public init(_ judgements: [Bool], truth: [Bool]) {
        let pairs = Array(zip(judgements, truth))
        count = pairs.count
        hits = pairs.count { $0.0 == $0.1 }
        func share(_ value: Bool) -> Double? {
            let own = pairs.filter { $0.1 == value }
            return own.isEmpty ? nil : Double(own.count { $0.0 == value }) / Double(own.count)
        }
        (sensitivity, specificity) = (share(true), share(false))
    }

    /// Share of right judgements.
    public var accuracy: Double { count > 0 ? Double(hits) / Double(count) : 0 }
    /// Mean of both shares: 0.5 for judgements that ignore the texts.
    public var balanced: Double? {
        guard let sensitivity, let specificity else { return nil }
        return (sensitivity + specificity) / 2
    }

    /// The score as JSON.
    public func json() -> JSONValue {
        [
            "hits": .integer(hits), "count": .integer(count), "accuracy": .number(accuracy),
            "balanced_accuracy": balanced.map { .number($0) } ?? .null,
        ]
    }
}

/// An explanation with its scores.
public struct ScoredExplanation: Sendable, Equatable {
    public let expert: UnitID
    public let text: String
    /// Which contexts fire the expert: *detection*.
    public let detection: JudgementScore
    /// On which held-out tokens it fires: how well the explanation predicts routing; nil if it fires on none.
    public let routing: JudgementScore?
    /// Both with an explanation of another expert instead: the baseline.
    public var otherDetection: JudgementScore?
    public var otherRouting: JudgementScore?

    /// Explains an expert and scores the explanation.
    public init(_ task: ExplanationTask, by server: ExplanationServer) throws {
        expert = task.expert
        text = try server.explanation(of: task.shown)
        (detection, routing) = try Self.scores(task, text, server)
    }

    /// Adds the scores of an explanation that was made for another expert.
    public mutating func compare(with other: String, _ task: ExplanationTask, by server: ExplanationServer)
        throws
    {
        (otherDetection, otherRouting) = try Self.scores(task, other, server)
    }

    private static func scores(_ task: ExplanationTask, _ text: String, _ server: ExplanationServer) throws
        -> (
            JudgementScore, JudgementScore?
        )
    {
        let detection = JudgementScore(
            try server.judgements(of: task.detectionTexts, by: text, marked: false),
            truth: task.detection.map(\.fires))
        guard !task.routing.isEmpty else { return (detection, nil) }
        let routing = JudgementScore(
            try server.judgements(of: task.routingTexts, by: text, marked: true),
            truth: task.routing.map { $0.scores[$0.place] > 0 })
        return (detection, routing)
    }

    /// Whether detection is better than judgements that ignore the texts.
    public var isCredible: Bool { (detection.balanced ?? 0) > 0.5 }

    /// The explanation as JSON.
    public func json() -> JSONValue {
        [
            "expert": .string(expert.description), "explanation": .string(text),
            "detection": detection.json(),
            "routing": routing.map { $0.json() } ?? .null,
            "other_explanation": otherDetection.map { detection in
                ["detection": detection.json(), "routing": otherRouting.map { $0.json() } ?? .null]
            } ?? .null,
        ]
    }
}
