import Foundation
import GRDB
import MonetModel

/// Everything an index knows about one expert.
public struct ExpertDossier: Sendable, Equatable {
    public let expert: UnitID
    /// The halves i and j of an expert; nil for a neuron.
    public let halves: UnitLayout.Halves?
    /// The layers in which it is active.
    public let layers: ClosedRange<Int>
    /// Mean score over all tokens, the share of tokens that fire it, their number, and the largest score.
    public let mean: Double
    public let frequency: Double
    public let count: Int
    public let max: Double
    /// Share of the most common token type in the summed scores of the top tokens.
    public let tokenConcentration: Double
    /// Numbers of tokens with a score above zero, by bins of scores, and the upper ends of the bins.
    public let histogram: [Int]
    public let histogramEnds: [Double]
    /// Its statistics on each label, by label set.
    public let labels: [LabelStatistics]
    /// The tokens with the largest scores, largest first.
    public let activations: [Activation]
    /// Descriptions of it by the model.
    public let explanations: [Explanation]
    /// The most frequent experts that share a half.
    public let neighbours: [Neighbour]
    /// The tokens that it promotes and suppresses; nil unless measured.
    public var logitEffects: LogitEffects?

    /// An expert's numbers over the labels of one set.
    public struct LabelStatistics: Sendable, Equatable {
        public let set: String
        /// Mean score and share of firing tokens of each label, largest mean first.
        public let labels: [(name: String, mean: Double, frequency: Double)]
        /// Entropy of the means as a distribution, in bits.
        public let entropy: Double
        /// Largest mean divided by the second largest; nil if there is no second.
        public let ratio: Double?

        public static func == (a: Self, b: Self) -> Bool {
            a.set == b.set && a.entropy == b.entropy && a.ratio == b.ratio
                && a.labels.elementsEqual(b.labels) { $0 == $1 }
        }
    }

    /// A token that fires the expert, with its context.
    public struct Activation: Sendable, Equatable {
        public let score: Double
        public let document: Int
        public let position: Int
        public let token: String
        public let before: String
        public let after: String
        /// The document's labels.
        public let labels: [String]
    }

    /// A description and the prompt that asked for it.
    public struct Explanation: Sendable, Equatable {
        public let text: String
        public let prompt: String
        /// Whether the model predicts the question well enough for its answer to mean something.
        public let isCredible: Bool

        /// Collects the parts.
        public init(text: String, prompt: String, isCredible: Bool) {
            self.text = text
            self.prompt = prompt
            self.isCredible = isCredible
        }
    }

    /// An expert that shares a half.
    public struct Neighbour: Sendable, Equatable {
        public let expert: UnitID
        /// Whether the left half is shared, rather than the right.
        public let sharesLeft: Bool
        public let mean: Double
        public let frequency: Double
    }
}

extension ExpertIndex {
    /// The dossier of an expert; one that never fired has zeros.
    ///
    /// - `context`: tokens shown before and after each top token.
    /// - `activations`: the maximum number of top tokens.
    /// - `neighbours`: the maximum number of experts that share a half, for each half.
    /// - Throws: `InsightError.malformedIndex`.
    public func dossier(
        of expert: UnitID, context: Int = 12, activations: Int = 20, neighbours: Int = 5
    ) throws -> ExpertDossier {
        try read { database in
            let key: StatementArguments = [expert.group, expert.index]
            let row = try Row.fetchOne(
                database, sql: "SELECT * FROM expert WHERE router_group = ? AND expert = ?", arguments: key)
            let detail = try Row.fetchOne(
                database, sql: "SELECT * FROM detail WHERE router_group = ? AND expert = ?", arguments: key)
            func words(_ column: String) -> [UInt32] {
                (detail?[column] as Data?)?.littleEndianWords ?? []
            }
            let explanations = try Row.fetchAll(
                database,
                sql: """
                    SELECT text, prompt, is_credible FROM explanation
                    WHERE router_group = ? AND expert = ? ORDER BY sample
                    """, arguments: key
            ).map {
                ExpertDossier.Explanation(
                    text: $0["text"], prompt: $0["prompt"], isCredible: $0["is_credible"])
            }
            return ExpertDossier(
                expert: expert, halves: units.halves(expert.index), layers: units.layersOfGroup[expert.group],
                mean: row?["mean"] ?? 0, frequency: row?["frequency"] ?? 0, count: row?["count"] ?? 0,
                max: row?["max"] ?? 0, tokenConcentration: row?["token_concentration"] ?? 0,
                histogram: words("histogram").map { Int($0) },
                histogramEnds: (0..<GroupStatistics.bins).map { GroupStatistics.upperEnd(ofBin: $0) },
                labels: statistics(means: words("label_means"), counts: words("label_counts")),
                activations: try self.activations(
                    words("activations"), limit: activations, context: context, database),
                explanations: explanations,
                neighbours: try self.neighbours(of: expert, limit: neighbours, database))
        }
    }

    private func statistics(means: [UInt32], counts: [UInt32]) -> [ExpertDossier.LabelStatistics] {
        labelSets.compactMap { set in
            guard let last = set.labels.last, last.id < means.count, last.id < counts.count else {
                return nil
            }
            let values = set.labels.map { Double(Float(bitPattern: means[$0.id])) }
            let specialty = LabelSpecialty(means: values)
            let labels = zip(set.labels, values).map { label, mean in
                (
                    name: label.name, mean: mean,
                    frequency: Double(counts[label.id]) / Double(Swift.max(1, label.tokens))
                )
            }
            return ExpertDossier.LabelStatistics(
                set: set.name, labels: labels.sorted { ($1.mean, $0.name) < ($0.mean, $1.name) },
                entropy: specialty?.entropy ?? 0,
                ratio: specialty.flatMap { $0.ratio.isFinite ? $0.ratio : nil })
        }
    }

    private func activations(
        _ words: [UInt32], limit: Int, context: Int, _ database: Database
    ) throws -> [ExpertDossier.Activation] {
        let texts = try database.cachedStatement(sql: "SELECT text FROM token WHERE id = ?")
        let slice = try database.cachedStatement(
            sql: "SELECT substr(tokens, ?, ?) FROM document WHERE id = ?")
        let labels = try database.cachedStatement(
            sql:
                "SELECT name FROM document_label JOIN label ON label.id = label WHERE document = ? ORDER BY label.id"
        )
        return try (0..<Swift.min(limit, words.count / 3)).map { place in
            let (document, position) = (Int(words[3 * place + 1]), Int(words[3 * place + 2]))
            let first = Swift.max(0, position - context)
            let ids =
                try Data.fetchOne(
                    slice, arguments: [4 * first + 1, 4 * (position + context + 1 - first), document]
                )?.littleEndianWords ?? []
            guard position - first < ids.count else {
                throw InsightError.malformedIndex(
                    path: path, reason: "document \(document) has no token \(position)")
            }
            let pieces = try ids.map { try String.fetchOne(texts, arguments: [Int($0)]) ?? "" }
            return ExpertDossier.Activation(
                score: Double(Float(bitPattern: words[3 * place])), document: document, position: position,
                token: TokenText.joined(pieces[(position - first)...(position - first)]),
                before: TokenText.joined(pieces[..<(position - first)]),
                after: TokenText.joined(pieces[(position - first + 1)...]),
                labels: try String.fetchAll(labels, arguments: [document]))
        }
    }

    private func neighbours(of expert: UnitID, limit: Int, _ database: Database) throws
        -> [ExpertDossier.Neighbour]
    {
        guard let side = units.perSide else { return [] }
        let first = expert.index / side * side
        let sameLeft = try Row.fetchAll(
            database,
            sql: """
                SELECT expert, mean, frequency FROM expert
                WHERE router_group = ? AND expert BETWEEN ? AND ? AND expert <> ? ORDER BY mean DESC LIMIT ?
                """, arguments: [expert.group, first, first + side - 1, expert.index, limit])
        let column = (0..<side).map { $0 * side + expert.index % side }.filter { $0 != expert.index }
            .map(String.init).joined(separator: ",")
        let sameRight = try Row.fetchAll(
            database,
            sql: """
                SELECT expert, mean, frequency FROM expert
                WHERE router_group = ? AND expert IN (\(column)) ORDER BY mean DESC LIMIT ?
                """, arguments: [expert.group, limit])
        func neighbour(_ row: Row, _ sharesLeft: Bool) -> ExpertDossier.Neighbour {
            ExpertDossier.Neighbour(
                expert: UnitID(group: expert.group, index: row["expert"]), sharesLeft: sharesLeft,
                mean: row["mean"], frequency: row["frequency"])
        }
        return sameLeft.map { neighbour($0, true) } + sameRight.map { neighbour($0, false) }
    }
}

/// Text of adjacent tokens, in which byte tokens such as `<0xE2>` are joined to characters.
enum TokenText {
    static func joined(_ pieces: some Collection<String>) -> String {
        var bytes: [UInt8] = []
        for piece in pieces {
            if piece.utf8.count == 6, piece.hasPrefix("<0x"), piece.hasSuffix(">"),
                let byte = UInt8(piece.dropFirst(3).dropLast(), radix: 16)
            {
                bytes.append(byte)
            } else {
                bytes += Array(piece.utf8)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
