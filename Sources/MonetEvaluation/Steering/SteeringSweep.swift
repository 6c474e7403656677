import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText

/// What steering achieves on some prompts, and what it costs on neutral text, over a range of strengths and beside other ways of
/// steering.
public struct SteeringSweep: Sendable {
    /// A way of steering.
    public struct Method: Sendable {
        /// Its name, shown beside its curve.
        public let name: String
        /// Strengths, in ascending order.
        public let strengths: [Float]
        /// What a strength does to every pass.
        public let steering: @Sendable (Float) -> Steering

        /// Joins them.
        public init(name: String, strengths: [Float], steering: @escaping @Sendable (Float) -> Steering) {
            (self.name, self.strengths, self.steering) = (name, strengths, steering)
        }
    }

    /// One strength of a method.
    public struct Point: Sendable, Equatable {
        /// The strength.
        public let strength: Float
        /// Mean effect over the prompts, and its standard error.
        public let effect: Double
        public let effectError: Double
        /// Neutral text.
        public let neutral: HeldOutScore
    }

    /// A method with its points; several methods of one name are random draws of the same kind.
    public struct Curve: Sendable, Equatable {
        public let name: String
        public let points: [Point]
    }

    /// The model without steering.
    public let plain: Point
    /// The curves in the order of their methods.
    public let curves: [Curve]

    /// Measures every strength of every method.
    ///
    /// - `progress`: called with the points that are done and their number; false stops.
    /// - Throws: `CancellationError` when stopped, `ModelError`, `EvaluationError`.
    public init(
        _ methods: [Method], effect: SteeringEffect, neutral: LabelledDocuments,
        backend: any Backend = CPUBackend(), progress: (_ done: Int, _ count: Int) -> Bool = { _, _ in true }
    ) throws {
        let count = 1 + methods.reduce(0) { $0 + $1.strengths.count }
        var done = 0
        let scorer = HeldOutScorer(model: effect.model, backend: backend)
        func point(_ strength: Float, _ steering: Steering?) throws -> Point {
            guard progress(done, count) else { throw CancellationError() }
            let values = try effect.values(steering)
            let mean = values.reduce(0, +) / Double(max(1, values.count))
            let variance =
                values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(max(1, values.count - 1))
            var isStopped = false
            let score = try scorer.total(neutral, steering: steering) { _ in
                isStopped = !progress(done, count)
                return !isStopped
            }
            if isStopped { throw CancellationError() }
            done += 1
            return Point(
                strength: strength, effect: mean,
                effectError: (variance / Double(max(1, values.count))).squareRoot(), neutral: score)
        }
        plain = try point(0, nil)
        curves = try methods.map { method in
            Curve(
                name: method.name,
                points: try method.strengths.map { try point($0, method.steering($0)) })
        }
    }
}

/// What steering is meant to change, measured on prompts.
public struct SteeringEffect: Sendable {
    /// A quantity.
    public enum Kind: Sendable {
        /// A weighted sum of logits after each prompt.
        case metric(AttributionTarget)
        /// A scorer's score of each prompt's continuation, or the mean over several.
        case score(any ToxicityScorer, samples: Int, tokens: Int, seed: UInt64)
    }

    let model: MonetLanguageModel
    private let tokenizer: Tokenizer
    private let prompts: [[Int32]]
    private let kind: Kind
    private let backend: any Backend

    /// - Throws: `EvaluationError.noPrompts` for no prompts, `ModelError.contextExceeded` for one that is too long.
    public init(
        _ kind: Kind, prompts: [[Int32]], source: String, model: MonetLanguageModel, tokenizer: Tokenizer,
        backend: any Backend = CPUBackend()
    ) throws {
        guard !prompts.isEmpty, prompts.allSatisfy({ !$0.isEmpty }) else {
            throw EvaluationError.noPrompts(path: source)
        }
        var room = 0
        if case .score(_, _, let tokens, _) = kind { room = tokens }
        let context = model.configuration.contextLength
        if let long = prompts.map(\.count).max(), long + room > context {
            throw ModelError.contextExceeded(tokens: long + room, context: context)
        }
        (self.kind, self.prompts, self.model, self.tokenizer) = (kind, prompts, model, tokenizer)
        self.backend = backend
    }

    /// Prompts that run together.
    private static let batch = 16

    /// The effect on each prompt.
    func values(_ steering: Steering?) throws -> [Double] {
        switch kind {
        case .metric(let target):
            var values: [Double] = []
            while values.count < prompts.count {
                let part = prompts[values.count...].prefix(Self.batch)
                let output = try model.forward(
                    ForwardInput(
                        part.map { tokens in
                            var sequence = ForwardSequence(tokens)
                            sequence.steering = steering
                            return sequence
                        }), on: backend)
                var row = 0
                for tokens in part {
                    row += tokens.count
                    let logits = try model.logits(output.hidden.value.slice((row - 1)..<row), on: backend)
                        .floats()
                    values.append(
                        target.terms.reduce(0) { $0 + Double($1.weight) * Double(logits[Int($1.token)]) })
                }
            }
            return values
        case .score(let scorer, let samples, let tokens, let seed):
            let requests = prompts.indices.flatMap { prompt in
                (0..<samples).map { sample -> GenerationRequest in
                    var settings = GenerationSettings()
                    settings.maxNewTokens = tokens
                    settings.sampling.temperature = samples == 1 ? 0 : 1
                    settings.sampling.seed = seed &+ UInt64(prompt * samples + sample)
                    var request = GenerationRequest(prompts[prompt], settings: settings)
                    request.steering = steering
                    return request
                }
            }
            let texts = try Continuations(model: model, tokenizer: tokenizer, backend: backend).texts(
                of: requests)
            let scores = try scorer.scores(of: texts)
            return prompts.indices.map { prompt in
                scores[(prompt * samples)..<((prompt + 1) * samples)].reduce(0, +) / Double(samples)
            }
        }
    }
}
