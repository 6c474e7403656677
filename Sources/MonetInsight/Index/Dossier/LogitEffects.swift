import Foundation
import GRDB
import MonetCompute
import MonetModel

/// The next tokens that an expert makes more and less likely where it fires most.
///
/// They are measured, not projected: the next token's probabilities after each of the expert's top tokens,
/// minus those with the expert removed, are averaged. All layers of its group and after it take part. Tokens
/// are ranked by the change of probability, which rare tokens, whose logarithms vary most, hardly affect.
public struct LogitEffects: Sendable, Equatable {
    /// One token of the vocabulary.
    public struct Token: Sendable, Equatable {
        /// Its text.
        public let text: String
        /// Mean difference of p.
        public let change: Double
        /// Mean difference of log p, in nats.
        public let logChange: Double
    }

    /// The tokens raised most, largest change first.
    public let promoted: [Token]
    /// The tokens lowered most, largest change first.
    public let suppressed: [Token]
    /// The number of top tokens averaged over.
    public let places: Int
}

extension ExpertIndex {
    /// The effect of the expert at its top tokens, measured by removing it.
    ///
    /// - `limit`: the number of promoted tokens, and of suppressed ones.
    /// - `places`: the maximum number of top tokens averaged over.
    /// - `before`: the number of tokens read before each.
    /// - Returns: nil for an expert that never fired.
    /// - Throws: `InsightError.foreignIndex` for another model than the index was built from.
    public func logitEffects(
        of expert: UnitID, model: MonetLanguageModel, backend: any Backend = CPUBackend(), limit: Int = 8,
        places: Int = 10, before: Int = 64
    ) throws -> LogitEffects? {
        try require(model)
        let contexts = try topContexts(
            of: expert, limit: places, before: min(before, model.configuration.contextLength - 1))
        if contexts.isEmpty { return nil }
        var mask = UnitMask(units)
        mask.remove([expert.index], group: expert.group)
        let (own, without) = (
            try predictions(contexts, model, backend, nil), try predictions(contexts, model, backend, mask)
        )
        let count = Double(contexts.count)
        let changes = own.sums.indices.map { (own.sums[$0] - without.sums[$0]) / count }
        let order = changes.indices.sorted { (changes[$1], $0) < (changes[$0], $1) }
        return try read { database in
            func token(_ id: Int) throws -> LogitEffects.Token {
                .init(
                    text: TokenText.joined([try text(database, of: id)]), change: changes[id],
                    logChange: (own.logSums[id] - without.logSums[id]) / count)
            }
            return LogitEffects(
                promoted: try order.prefix(limit).filter { changes[$0] > 0 }.map(token),
                suppressed: try order.suffix(limit).reversed().filter { changes[$0] < 0 }.map(token),
                places: contexts.count)
        }
    }

    /// Each top token with the tokens before it, strongest first.
    private func topContexts(of expert: UnitID, limit: Int, before: Int) throws -> [[Int32]] {
        try read { database in
            try firings(database, of: expert).prefix(limit).map { firing in
                let first = Swift.max(0, firing.position - before)
                let count = firing.position + 1 - first
                let ids = try tokens(database, document: firing.document, from: first, count: count)
                guard ids.count == count else {
                    throw InsightError.malformedIndex(
                        path: path, reason: "document \(firing.document) has no token \(firing.position)")
                }
                return ids
            }
        }
    }

    /// p and log p of every token after each context, summed over the contexts, `[vocabulary]`.
    private func predictions(
        _ contexts: [[Int32]], _ model: MonetLanguageModel, _ backend: any Backend, _ mask: UnitMask?
    ) throws -> (sums: [Double], logSums: [Double]) {
        let hidden = try model.forward(ForwardInput(contexts, mask: mask), on: backend).hidden.value
        var sums = [Double](repeating: 0, count: model.configuration.vocabularySize)
        var logSums = sums
        var row = 0
        for tokens in contexts {
            row += tokens.count
            let logits = try model.logits(hidden.slice((row - 1)..<row), on: backend).floats().map(
                Double.init)
            let largest = logits.max() ?? 0
            let logSum = largest + log(logits.reduce(0) { $0 + exp($1 - largest) })
            for id in sums.indices {
                sums[id] += exp(logits[id] - logSum)
                logSums[id] += logits[id] - logSum
            }
        }
        return (sums, logSums)
    }
}
