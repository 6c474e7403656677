import Foundation
import MonetCompute
import MonetGeneration
import MonetModel
import MonetText

/// A model that is examined for what it knows, as it is or with units removed.
public struct UnlearningSubject {
    /// Shown in tables.
    public let name: String
    let model: MonetLanguageModel
    public let tokenizer: Tokenizer
    let backend: any Backend
    let mask: UnitMask?
    private let tokens: ContinuationTokens

    /// Joins a model and what is removed from it.
    ///
    /// - `mask`: in addition to the model's own.
    /// - `backend`: a batch-invariant one makes every score independent of the others.
    public init(
        name: String, model: MonetLanguageModel, tokenizer: Tokenizer, mask: UnitMask? = nil,
        backend: any Backend = CPUBackend(isBatchInvariant: true)
    ) {
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        self.mask = mask
        tokens = ContinuationTokens(tokenizer: tokenizer, context: model.configuration.contextLength)
    }

    /// The same model with other units removed.
    public func removing(_ mask: UnitMask?, name: String) -> UnlearningSubject {
        UnlearningSubject(name: name, model: model, tokenizer: tokenizer, mask: mask, backend: backend)
    }

    /// Whether the tokenizer has an end token, which an answer can have as its last.
    var hasEnd: Bool { tokenizer.endID != nil }

    /// Tokens that fit into the context.
    public var contextLength: Int { tokens.context }

    /// How likely texts are after their prompts.
    ///
    /// - `addsEnd`: whether the end token, if the tokenizer has one, is part of each text.
    /// - `step`: called after each pass; throws to stop.
    package func likelihoods(
        of pairs: [(prompt: String, text: String)], addsEnd: Bool, step: () throws -> Void
    ) throws -> [AnswerLikelihood] {
        try likelihoods(
            of: pairs.map { pair in
                let query = try tokens.query(context: pair.prompt, continuation: pair.text)
                guard addsEnd, let end = tokenizer.endID else { return query }
                let all = query.tokens + [end]
                let surplus = max(0, all.count - tokens.context - 1)
                return .init(tokens: Array(all.dropFirst(surplus)), first: max(1, query.first - surplus))
            }, step: step)
    }

    /// The same of tokens.
    package func likelihoods(
        of queries: [ContinuationScorer.Query], step: () throws -> Void
    ) throws -> [AnswerLikelihood] {
        var scores = queries.map { _ in ContinuationScorer.Score() }
        let kept = queries.map { query in
            var query = query
            query.keepsTokens = true
            return query
        }
        var failure: (any Error)?
        _ = try ContinuationScorer(model: model, backend: backend, mask: mask).score(
            kept,
            progress: { _ in do { try step() } catch { failure = error } },
            report: { index, score in
                scores[index] = score
                return failure == nil
            })
        if let failure { throw failure }
        return scores.map(AnswerLikelihood.init)
    }

    /// The whole text as one window, without a prompt; its beginning if it is longer than the context.
    func window(_ text: String) throws -> ContinuationScorer.Query? {
        let all = try tokens.encode(text)
        var prefixed = all
        if !tokenizer.addsBegin, let begin = tokenizer.beginID { prefixed = [begin] + all }
        let cut = Array(prefixed.prefix(tokens.context))
        return cut.count > 1 ? .init(tokens: cut, first: 1) : nil
    }

    /// The beginning of a text that has so many tokens, the begin token among them.
    func beginning(of text: String, tokens count: Int) throws -> String {
        try tokenizer.decode(Array(tokens.encode(text).prefix(count)))
    }

    /// The most likely continuations of texts.
    ///
    /// - `newTokens`: the most tokens of a continuation; at most half of the context.
    /// - `stops`: texts that end a continuation and are not part of it.
    package func continuations(
        of prompts: [String], newTokens: Int, stops: [String] = [], step: () throws -> Void
    ) throws -> [String] {
        let count = min(newTokens, max(1, tokens.context / 2))
        return try continuations(
            of: prompts.map { try tokens.prompt($0, newTokens: count) }, newTokens: count, stops: stops,
            step: step)
    }

    /// The same of tokens, whose prompts and continuations fit into the context together.
    package func continuations(
        of prompts: [[Int32]], newTokens: Int, stops: [String] = [], step: () throws -> Void
    ) throws -> [String] {
        var settings = GenerationSettings()
        settings.maxNewTokens = newTokens
        settings.sampling = .greedy
        var limits = BatchEngine.Limits()
        limits.sequences = 16
        let engine = TextEngine(
            try BatchEngine(model: model, backend: backend, limits: limits, contextLength: tokens.context),
            tokenizer: tokenizer)
        var owners: [Int: Int] = [:]
        var texts = prompts.map { _ in "" }
        var next = 0
        while next < prompts.count || !engine.isIdle {
            // Requests are submitted as places become free, so that few prompts are in memory.
            while next < prompts.count, engine.runningCount + engine.waitingCount < 2 * limits.sequences {
                let request = GenerationRequest(prompts[next], settings: settings, mask: mask)
                owners[try engine.submit(request, stopStrings: stops)] = next
                next += 1
            }
            for event in engine.step() {
                switch event.kind {
                case .finished(let result):
                    if let place = owners.removeValue(forKey: event.request) { texts[place] = result.text }
                case .failed(let error): throw error
                case .scored, .step, .observed: break
                }
            }
            try step()
        }
        return texts
    }
}
