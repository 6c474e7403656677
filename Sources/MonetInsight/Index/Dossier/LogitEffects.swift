import Foundation
import GRDB
import MonetCompute
import MonetModel

/// The next tokens that an expert makes more and less likely where it fires most.
///
/// They are measured, not projected: the next token's log-probabilities after each of the expert's top
/// tokens, minus those with the expert removed, are averaged. All layers of its group and after it take part.
public struct LogitEffects: Sendable, Equatable {
    /// One token of the vocabulary.
    public struct Token: Sendable, Equatable {
        /// Its text.
        public let text: String
        /// Mean difference of log p, in nats.
        public let change: Double
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
    /// - `count`: the number of promoted tokens, and of suppressed ones.
    /// - `places`: the maximum number of top tokens averaged over.
    /// - `before`: the number of tokens read before each.
    /// - Returns: nil for an expert that never fired.
    /// - Throws: `InsightError.foreignIndex` for another model than the index was built from.
    public func logitEffects(
        of expert: UnitID, model: MonetLanguageModel, backend: any Backend = CPUBackend(), count: Int = 8,
        places: Int = 10, before: Int = 64
    ) throws -> LogitEffects? {
        guard model.fingerprint == modelFingerprint else {
            throw InsightError.foreignIndex(
                path: path, expected: model.fingerprint, found: modelFingerprint)
        }
        let contexts = try topContexts(
            of: expert, limit: places, before: min(before, model.configuration.contextLength - 1))
        if contexts.isEmpty { return nil }
        var mask = UnitMask(units)
        mask.remove([expert.index], group: expert.group)
        let (own, without) = (
            try logProbabilities(contexts, model, backend, nil),
            try logProbabilities(contexts, model, backend, mask)
        )
        let changes = own.indices.map { (own[$0] - without[$0]) / Double(contexts.count) }
        let order = changes.indices.sorted { (changes[$1], $0) < (changes[$0], $1) }
        return try read { database in
            let texts = try database.cachedStatement(sql: "SELECT text FROM token WHERE id = ?")
            func token(_ id: Int) throws -> LogitEffects.Token {
                .init(
                    text: TokenText.joined([try String.fetchOne(texts, arguments: [id]) ?? ""]),
                    change: changes[id])
            }
            return LogitEffects(
                promoted: try order.prefix(count).filter { changes[$0] > 0 }.map(token),
                suppressed: try order.suffix(count).reversed().filter { changes[$0] < 0 }.map(token),
                places: contexts.count)
        }
    }

    /// Each top token with the tokens before it, strongest first.
    private func topContexts(of expert: UnitID, limit: Int, before: Int) throws -> [[Int32]] {
        try read { database in
            let words =
                try Data.fetchOne(
                    database, sql: "SELECT activations FROM detail WHERE router_group = ? AND expert = ?",
                    arguments: [expert.group, expert.index])?.littleEndianWords ?? []
            let slice = try database.cachedStatement(
                sql: "SELECT substr(tokens, ?, ?) FROM document WHERE id = ?")
            return try (0..<Swift.min(limit, words.count / 3)).map { place in
                let (document, position) = (Int(words[3 * place + 1]), Int(words[3 * place + 2]))
                let first = Swift.max(0, position - before)
                let ids =
                    try Data.fetchOne(
                        slice, arguments: [4 * first + 1, 4 * (position + 1 - first), document]
                    )?.littleEndianWords ?? []
                guard ids.count == position + 1 - first else {
                    throw InsightError.malformedIndex(
                        path: path, reason: "document \(document) has no token \(position)")
                }
                return ids.map { Int32(bitPattern: $0) }
            }
        }
    }

    /// log p of every token after each context, summed over the contexts, `[vocabulary]`.
    private func logProbabilities(
        _ contexts: [[Int32]], _ model: MonetLanguageModel, _ backend: any Backend, _ mask: UnitMask?
    ) throws -> [Double] {
        let hidden = try model.forward(ForwardInput(contexts, mask: mask), on: backend).hidden.value
        var sums = [Double](repeating: 0, count: model.configuration.vocabularySize)
        var row = 0
        for tokens in contexts {
            row += tokens.count
            let logits = try model.logits(hidden.slice((row - 1)..<row), on: backend).floats().map(
                Double.init)
            let largest = logits.max() ?? 0
            let logSum = largest + log(logits.reduce(0) { $0 + exp($1 - largest) })
            for id in sums.indices { sums[id] += logits[id] - logSum }
        }
        return sums
    }
}
