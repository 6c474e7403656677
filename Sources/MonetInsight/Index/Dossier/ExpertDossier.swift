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
    /// The tokens with the largest scores, largest first, with near-duplicate contexts left out.
    public var activations: [Activation]
    /// How many were left out.
    public let duplicates: Int
    /// Tokens drawn at random from bands of scores, strongest band first.
    public var samples: [Band]
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
        /// The texts of the tokens around it and of itself; `<0xE2>` for a byte.
        public let pieces: [String]
        /// Which of them it is.
        public let place: Int
        /// The expert's score on each of them; nil unless measured (`ExpertIndex.measureContexts`).
        public var scores: [Double]?
        /// The document's labels.
        public let labels: [String]

        /// Its text, and those before and after it.
        public var token: String { TokenText.joined([pieces[place]]) }
        public var before: String { TokenText.joined(pieces[..<place]) }
        public var after: String { TokenText.joined(pieces[(place + 1)...]) }
    }

    /// Tokens whose scores are in one range.
    public struct Band: Sendable, Equatable {
        /// Above `lower`, at most `upper`; nil where the band has no end.
        public let lower: Double?
        public let upper: Double?
        /// The number of tokens in it.
        public let count: Int
        public var activations: [Activation]
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
            let row = try row(
                database,
                sql: """
                    SELECT mean, frequency, count, max, token_concentration FROM expert
                    WHERE router_group = ? AND expert = ?
                    """, key)
            let detail = try self.row(
                database,
                sql: """
                    SELECT histogram, activations, samples, label_means, label_counts FROM detail
                    WHERE router_group = ? AND expert = ?
                    """, key)
            guard (row == nil) == (detail == nil) else {
                throw InsightError.malformedIndex(
                    path: path, reason: "expert \(expert) is in one table of two")
            }
            let explanations = try self.explanations(database, of: expert)
            let histogram =
                try detail?.words("histogram", count: GroupStatistics.bins).map { Int($0) }
                ?? Array(repeating: 0, count: GroupStatistics.bins)
            let (top, duplicates) = try distinct(
                detail?.firings("activations", documents: documents) ?? [], limit: activations,
                context: context, database)
            return ExpertDossier(
                expert: expert, halves: units.halves(expert.index), layers: units.layersOfGroup[expert.group],
                mean: try row?.number("mean") ?? 0, frequency: try row?.share("frequency") ?? 0,
                count: try row?.integer("count", 0..<(tokens + 1)) ?? 0, max: try row?.number("max") ?? 0,
                tokenConcentration: try row?.share("token_concentration") ?? 0, histogram: histogram,
                histogramEnds: (0..<GroupStatistics.bins).map { GroupStatistics.upperEnd(ofBin: $0) },
                labels: try detail.map { try statistics($0) } ?? [], activations: top, duplicates: duplicates,
                samples: try bands(
                    detail?.firings("samples", documents: documents) ?? [], histogram, context, database),
                explanations: explanations,
                neighbours: try self.neighbours(of: expert, limit: neighbours, database))
        }
    }

    private func statistics(_ detail: IndexRow) throws -> [ExpertDossier.LabelStatistics] {
        let count = labelSets.reduce(0) { $0 + $1.labels.count }
        let means = try detail.scores("label_means", count: count)
        let counts = try detail.words("label_counts", count: count)
        return labelSets.map { set in
            let values = set.labels.map { means[$0.id] }
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

    /// The first `limit` tokens, without those whose context resembles an earlier one's.
    private func distinct(
        _ firings: [IndexedFiring], limit: Int, context: Int, _ database: Database
    ) throws -> ([ExpertDossier.Activation], duplicates: Int) {
        var kept: [ExpertDossier.Activation] = []
        var known: [ContextShape] = []
        var duplicates = 0
        for firing in firings where kept.count < limit {
            let activation = try activation(firing, context, database)
            let shape = ContextShape(activation.pieces, place: activation.place)
            if known.contains(where: { $0.resembles(shape) }) {
                duplicates += 1
            } else {
                known.append(shape)
                kept.append(activation)
            }
        }
        return (kept, duplicates)
    }

    /// The samples by band of scores.
    private func bands(
        _ firings: [IndexedFiring], _ histogram: [Int], _ context: Int, _ database: Database
    ) throws -> [ExpertDossier.Band] {
        try (0..<GroupStatistics.bands).reversed().compactMap { band in
            let own = firings.filter { GroupStatistics.band(of: $0.score) == band }
            if own.isEmpty { return nil }
            let bins = (band * GroupStatistics.binsPerBand)..<((band + 1) * GroupStatistics.binsPerBand)
            return ExpertDossier.Band(
                lower: band > 0 ? GroupStatistics.upperEnd(ofBin: bins.lowerBound - 1) : nil,
                upper: band < GroupStatistics.bands - 1
                    ? GroupStatistics.upperEnd(ofBin: bins.upperBound - 1) : nil,
                count: histogram[bins].reduce(0, +),
                activations: try own.map { try activation($0, context, database) })
        }
    }

    private func activation(
        _ firing: IndexedFiring, _ context: Int, _ database: Database
    ) throws -> ExpertDossier.Activation {
        let first = Swift.max(0, firing.position - context)
        let place = firing.position - first
        let ids = try tokens(
            database, document: firing.document, from: first, count: place + context + 1)
        guard place < ids.count else {
            throw InsightError.malformedIndex(
                path: path, reason: "document \(firing.document) has no token \(firing.position)")
        }
        let labels = try rows(
            database,
            sql: """
                SELECT name FROM document_label JOIN label ON label.id = label WHERE document = ?
                ORDER BY label.id
                """, [firing.document])
        return ExpertDossier.Activation(
            score: Double(firing.score), document: firing.document, position: firing.position,
            pieces: try ids.map { try text(database, of: Int($0)) }, place: place, scores: nil,
            labels: try labels.map { try $0.text("name") })
    }

    private func neighbours(of expert: UnitID, limit: Int, _ database: Database) throws
        -> [ExpertDossier.Neighbour]
    {
        guard let side = units.perSide else { return [] }
        let first = expert.index / side * side
        let sameLeft = try rows(
            database,
            sql: """
                SELECT expert, mean, frequency FROM expert
                WHERE router_group = ? AND expert BETWEEN ? AND ? AND expert <> ? ORDER BY mean DESC LIMIT ?
                """, [expert.group, first, first + side - 1, expert.index, limit])
        let column = (0..<side).map { $0 * side + expert.index % side }.filter { $0 != expert.index }
            .map(String.init).joined(separator: ",")
        let sameRight = try rows(
            database,
            sql: """
                SELECT expert, mean, frequency FROM expert
                WHERE router_group = ? AND expert IN (\(column)) ORDER BY mean DESC LIMIT ?
                """, [expert.group, limit])
        func neighbour(_ row: IndexRow, _ sharesLeft: Bool) throws -> ExpertDossier.Neighbour {
            ExpertDossier.Neighbour(
                expert: try self.expert(row, group: expert.group), sharesLeft: sharesLeft,
                mean: try row.number("mean"), frequency: try row.share("frequency"))
        }
        return try sameLeft.map { try neighbour($0, true) } + sameRight.map { try neighbour($0, false) }
    }
}

/// The tokens of a context and their order, to tell whether two contexts are nearly the same text.
private struct ContextShape {
    /// A token and the one after it.
    private struct Pair: Hashable {
        let first: String
        let second: String
    }

    private let pairs: Set<Pair>
    private let token: String

    init(_ pieces: [String], place: Int) {
        pairs = Set(zip(pieces, pieces.dropFirst()).map { Pair(first: $0, second: $1) })
        token = pieces[place]
    }

    /// Whether three quarters of the pairs of adjacent tokens agree, and the firing token does.
    func resembles(_ other: ContextShape) -> Bool {
        let shared = pairs.intersection(other.pairs).count
        return token == other.token && !pairs.isEmpty
            && Double(shared) >= 0.75 * Double(min(pairs.count, other.pairs.count))
    }
}

/// Text of adjacent tokens, in which byte tokens such as `<0xE2>` are joined to characters.
package enum TokenText {
    /// Whether a piece stands for one byte.
    static func isByte(_ piece: String) -> Bool {
        piece.utf8.count == 6 && piece.hasPrefix("<0x") && piece.hasSuffix(">")
    }

    package static func joined(_ pieces: some Collection<String>) -> String {
        var bytes: [UInt8] = []
        for piece in pieces {
            if isByte(piece), let byte = UInt8(piece.dropFirst(3).dropLast(), radix: 16) {
                bytes.append(byte)
            } else {
                bytes += Array(piece.utf8)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
