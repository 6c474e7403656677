import Foundation
import GRDB
import MonetFoundation

/// What experts to look for.
public struct ExpertQuery: Sendable, Equatable {
    /// Only experts whose strongest label this is.
    public var label: ExpertIndex.Label?
    /// Only experts that have this text among their top tokens.
    public var token: String?
    /// Only experts of this group.
    public var group: Int?
    /// Minimum number of tokens that an expert fires on.
    public var minimumCount = 0
    /// Minimum share of all tokens that an expert fires on.
    public var minimumFrequency = 0.0
    /// The sort key, largest first.
    public var sort: Sort?
    /// Whether the smallest come first.
    public var isAscending = false
    /// Maximum number of experts, after the first `offset` ones.
    public var limit = 20
    public var offset = 0
    /// Only experts with this tag.
    public var tag: String?
    /// Only experts whose notes, tags, explanations, strongest labels or top tokens contain this text.
    public var text: String?

    /// What orders the result.
    public enum Sort: String, Sendable, CaseIterable {
        /// Mean score over all tokens, or over the label's if there is a label.
        case mean
        /// Share of tokens that fire it.
        case frequency
        /// Largest score.
        case max
        /// Mean score on its label divided by that on the next label; needs a label.
        case ratio
        /// Share of the token in the summed scores of its top tokens; needs a token.
        case share
    }

    /// The 20 that fire on most tokens.
    public init() {}

    var criterion: SpecialistCriterion {
        SpecialistCriterion(minimumCount: minimumCount, minimumFrequency: minimumFrequency)
    }
}

/// One expert of a search.
public struct FoundExpert: Sendable, Equatable {
    public let expert: UnitID
    /// Mean score over all tokens.
    public let mean: Double
    /// Share of tokens that fire it.
    public let frequency: Double
    /// Largest score.
    public let max: Double
    /// The quantity searched for: the ratio for a label, the share for a token, the mean score in a text.
    public let value: Double?
}

extension ExpertIndex {
    /// The experts that match a query, in its order.
    ///
    /// - Throws: `InsightError.invalidSetting` for a sort key that the query does not support.
    public func find(_ query: ExpertQuery) throws -> [FoundExpert] {
        guard
            [query.label != nil, query.token != nil, query.text != nil, query.tag != nil]
                .count(where: { $0 }) < 2
        else {
            throw InsightError.invalidSetting(
                name: "the search", found: "several of label, token, tag and text", expected: "one of them")
        }
        var arguments: [String: any DatabaseValueConvertible] = [
            "limit": query.limit, "offset": query.offset,
        ]
        var conditions: [String] = []
        if let group = query.group {
            conditions.append("t.router_group = :group")
            arguments["group"] = group
        }
        let least = minimumFrequency(query.criterion)
        if least > 0 { arguments["frequency"] = least }
        // What is searched, t, and the experts of its rows, e, which are looked up before the page is chosen only if the
        // choice depends on them.
        let (source, value, order): (String, String, String)
        var isExpert = false
        if let label = query.label {
            conditions.append("t.label = :label")
            if least > 0 { conditions.append("t.frequency >= :frequency") }
            arguments["label"] = label.id
            (source, value) = ("specialty", "t.ratio")
            order = try column(
                query.sort ?? .ratio,
                [.ratio: "t.ratio", .mean: "t.mean", .frequency: "t.frequency", .max: "e.max"])
        } else if let token = query.token {
            conditions.append("t.token IN (SELECT id FROM token WHERE trim(text) = :token)")
            arguments["token"] = token.trimmingCharacters(in: .whitespaces)
            (source, value) = ("expert_token", "t.share")
            order = try column(
                query.sort ?? .share,
                [.share: "t.share", .mean: "e.mean", .frequency: "e.frequency", .max: "e.max"])
        } else {
            let matching = try matches(query, &arguments)
            isExpert = matching == nil
            (source, value) = (matching.map { "(\($0))" } ?? "expert", "NULL")
            let table = isExpert ? "t" : "e"
            order = try column(
                query.sort ?? .frequency,
                [.mean: "\(table).mean", .frequency: "\(table).frequency", .max: "\(table).max"])
        }
        if least > 0 { conditions.append("\(isExpert ? "t" : "e").frequency >= :frequency") }
        func experts(of table: String) -> String {
            "CROSS JOIN expert e ON e.router_group = \(table).router_group AND e.expert = \(table).expert"
        }
        var join = "\(source) t"
        if let label = query.label, order.hasPrefix("e."), try isCommon(label) {
            // Experts in the order asked for, until enough are of the label.
            join =
                "expert e CROSS JOIN specialty t ON t.set_id = :set "
                + "AND t.router_group = e.router_group AND t.expert = e.expert"
            arguments["set"] = labelSets.first { $0.labels.contains(label) }?.id ?? 0
        } else if !isExpert, least > 0 || order.hasPrefix("e.") {
            join += " " + experts(of: "t")
        }
        let filter = conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND ")
        let direction = query.isAscending ? "ASC" : "DESC"
        return try read { database in
            try rows(
                database,
                sql: """
                    SELECT e.router_group, e.expert, e.mean, e.frequency, e.max, p.value FROM (
                        SELECT t.router_group, t.expert, \(value) AS value, \(order) AS sort_key
                        FROM \(join) \(filter)
                        ORDER BY \(order) \(direction) LIMIT :limit OFFSET :offset) p
                    \(experts(of: "p")) ORDER BY p.sort_key \(direction)
                    """, StatementArguments(arguments)
            ).map { row in try found(row, value: value == "NULL" ? nil : row.number("value")) }
        }
    }

    /// Whether so many experts have this as their strongest label that it is met soon in any order.
    private func isCommon(_ label: Label) throws -> Bool {
        let many = 20_000
        return try read { database in
            try Int.fetchOne(
                database,
                sql: "SELECT count(*) FROM (SELECT 1 FROM specialty WHERE label = ? LIMIT \(many))",
                arguments: [label.id]) == many
        }
    }

    /// The most experts that a search by a text looks up.
    private static let mostLookups = 5000
    /// The most experts of each kind of match that a search for a text looks at.
    private static let mostMatches = 2000

    /// A query for the experts with a tag, or with a text in what is known of them; nil if neither is asked for.
    private func matches(_ query: ExpertQuery, _ arguments: inout [String: any DatabaseValueConvertible])
        throws
        -> String?
    {
        if let tag = query.tag {
            arguments["tag"] = tag
            return hasNotes
                ? "SELECT router_group, expert FROM tag WHERE tag = :tag"
                : "SELECT 0 AS router_group, 0 AS expert WHERE 0 AND :tag IS NULL"
        }
        guard let text = query.text?.trimmingCharacters(in: .whitespaces), !text.isEmpty else { return nil }
        let escaped = text.reduce(into: "") { $0 += "\\%_".contains($1) ? "\\\($1)" : "\($1)" }
        arguments["pattern"] = "%\(escaped)%"
        arguments["word"] = text
        let like = "LIKE :pattern ESCAPE '\\'"
        // SQLite joins at most 500 queries.
        let labels = labelSets.flatMap(\.labels).filter { $0.name.localizedCaseInsensitiveContains(text) }
            .prefix(100)
        var parts = [
            "SELECT router_group, expert FROM explanation WHERE text \(like)",
            "SELECT router_group, expert FROM expert_token WHERE token IN "
                + "(SELECT id FROM token WHERE trim(text) = :word) LIMIT \(Self.mostMatches)",
        ]
        parts += labels.map {
            "SELECT router_group, expert FROM specialty WHERE label = \($0.id) "
                + "ORDER BY ratio DESC LIMIT \(Self.mostMatches)"
        }
        if hasNotes {
            parts += ["note WHERE text", "tag WHERE tag"].map {
                "SELECT router_group, expert FROM \($0) \(like)"
            }
        }
        return parts.map { "SELECT * FROM (\($0))" }.joined(separator: " UNION ")
    }

    private func found(_ row: IndexRow, value: Double?) throws -> FoundExpert {
        FoundExpert(
            expert: try expert(row), mean: try row.number("mean"), frequency: try row.share("frequency"),
            max: try row.number("max"), value: value)
    }

    private func column(_ sort: ExpertQuery.Sort, _ columns: [ExpertQuery.Sort: String]) throws -> String {
        guard let column = columns[sort] else {
            throw InsightError.invalidSetting(
                name: "the order", found: sort.rawValue,
                expected: columns.keys.map(\.rawValue).sorted().joined(separator: ", ") + " here")
        }
        return column
    }

    /// The experts that fire on a text and not, or less, on another, sorted by mean score in the first times the
    /// logarithm of its ratio to that in the second.
    ///
    /// - `scores`, `others`: mean scores over the texts' tokens, by expert.
    public func find(
        firedBy scores: [UnitID: Double], butNotBy others: [UnitID: Double], group: Int? = nil,
        limit: Int = 20,
        floor: Double
    ) throws -> [FoundExpert] {
        let weighted = scores.compactMap { unit, score -> (weight: Double, unit: UnitID, score: Double)? in
            let other = Swift.max(others[unit] ?? 0, floor)
            guard group.map({ $0 == unit.group }) ?? true, score > other else { return nil }
            return (score * log(score / other), unit, score)
        }
        let best = weighted.sorted {
            ($1.weight, $0.unit.group, $0.unit.index) < ($0.weight, $1.unit.group, $1.unit.index)
        }.prefix(limit)
        return try read { database in
            try best.compactMap { entry in
                try row(
                    database,
                    sql: """
                        SELECT router_group, expert, mean, frequency, max FROM expert
                        WHERE router_group = ? AND expert = ?
                        """, [entry.unit.group, entry.unit.index]
                ).map { try found($0, value: entry.score) }
                    ?? FoundExpert(expert: entry.unit, mean: 0, frequency: 0, max: 0, value: entry.score)
            }
        }
    }

    /// The experts that fire more on a text than on the corpus, sorted by mean score in the text times
    /// the logarithm of its ratio to the mean in the corpus.
    ///
    /// - `scores`: mean scores over the text's tokens, by expert.
    public func find(
        firedBy scores: [UnitID: Double], group: Int? = nil, minimumCount: Int = 0,
        minimumFrequency: Double = 0, limit: Int = 20
    ) throws -> [FoundExpert] {
        // Strong scores alone can come first; looking up every expert that fired once takes seconds.
        let strongest = scores.filter { entry in group.map { $0 == entry.key.group } ?? true }
            .sorted { ($1.value, $0.key.group, $0.key.index) < ($0.value, $1.key.group, $1.key.index) }
            .prefix(Self.mostLookups).map(\.key)
        let known = try read { database in
            try strongest.compactMap { expert -> FoundExpert? in
                try row(
                    database,
                    sql: """
                        SELECT router_group, expert, mean, frequency, max FROM expert
                        WHERE router_group = ? AND expert = ?
                        """, [expert.group, expert.index]
                ).map { try found($0, value: nil) }
            }
        }
        // A mean that rounds to zero counts as that of one weak firing.
        let floor = 0.01 / Double(Swift.max(1, tokens))
        let least = self.minimumFrequency(
            SpecialistCriterion(minimumCount: minimumCount, minimumFrequency: minimumFrequency))
        let weighted = known.filter { $0.frequency >= least }.map { found in
            let score = scores[found.expert] ?? 0
            return (weight: score * log(score / Swift.max(found.mean, floor)), score: score, found: found)
        }
        return weighted.sorted {
            ($1.weight, $0.found.expert.group, $0.found.expert.index)
                < ($0.weight, $1.found.expert.group, $1.found.expert.index)
        }.prefix(limit).map { entry in
            FoundExpert(
                expert: entry.found.expert, mean: entry.found.mean, frequency: entry.found.frequency,
                max: entry.found.max, value: entry.score)
        }
    }
}

extension ExpertIndex {
    /// The most common types among the top tokens of experts, at most `count` for each.
    public func topTokens(of experts: [UnitID], count: Int) throws -> [[String]] {
        try experts.map { expert in
            var scores: [String: Double] = [:]
            for activation in try dossier(of: expert, context: 0, neighbours: 0).activations {
                scores[activation.token.trimmingCharacters(in: .whitespaces).onOneLine, default: 0] +=
                    activation.score
            }
            return scores.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(count).map(\.key)
        }
    }
}

extension ExpertIndex {
    /// The experts that fire on enough tokens, most frequent first.
    public func experts(group: Int? = nil, minimumCount: Int = 1) throws -> [UnitID] {
        var query = ExpertQuery()
        (query.group, query.minimumCount, query.limit) = (group, minimumCount, units.count)
        return try find(query).map(\.expert)
    }
}
