import Foundation
import GRDB
import MonetFoundation

/// What a reader wrote about an expert.
public struct ExpertNote: Sendable, Equatable {
    /// The note; empty for none.
    public var text: String
    /// Tags, in alphabetical order.
    public var tags: [String]

    /// A note with tags.
    public init(text: String = "", tags: [String] = []) {
        self.text = text
        self.tags = tags
    }
}

extension ExpertIndex {
    /// Longest note, longest tag and most tags of an expert, in bytes and numbers.
    public static let longestNote = 20_000
    public static let longestTag = 100
    public static let mostTags = 50

    /// The note and the tags of an expert.
    public func note(of expert: UnitID) throws -> ExpertNote {
        guard hasNotes else { return ExpertNote() }
        return try read { database in
            let key: StatementArguments = [expert.group, expert.index]
            let text = try row(
                database, sql: "SELECT text FROM note WHERE router_group = ? AND expert = ?", key)?.text(
                    "text")
            let tags = try rows(
                database, sql: "SELECT tag FROM tag WHERE router_group = ? AND expert = ? ORDER BY tag", key)
            return ExpertNote(text: text ?? "", tags: try tags.map { try $0.text("tag") })
        }
    }

    /// Stores the note and the tags of an expert in place of earlier ones. The index must be open for writing.
    ///
    /// - Throws: `InsightError.invalidSetting` for what is too long, `InsightError.unwritableIndex`.
    public func setNote(_ note: ExpertNote, of expert: UnitID) throws {
        let tags = Set(note.tags.map { $0.trimmingCharacters(in: .whitespaces) }).filter { !$0.isEmpty }
        // SQLite's functions end a text there.
        guard !(tags + [note.text]).contains(where: { $0.contains("\0") }) else {
            throw InsightError.invalidSetting(
                name: "the note", found: "one with a NUL", expected: "a text without")
        }
        for (name, found, most) in [
            ("note", note.text.utf8.count, Self.longestNote), ("number of tags", tags.count, Self.mostTags),
            ("tag", tags.map(\.utf8.count).max() ?? 0, Self.longestTag),
        ] where found > most {
            throw InsightError.invalidSetting(
                name: "the \(name)", found: "\(found)", expected: "at most \(most)")
        }
        try write { database in
            let key: StatementArguments = [expert.group, expert.index]
            for table in ["note", "tag"] {
                try database.execute(
                    sql: "DELETE FROM \(table) WHERE router_group = ? AND expert = ?", arguments: key)
            }
            if !note.text.isEmpty {
                try database.execute(
                    sql: "INSERT INTO note VALUES (?, ?, ?)",
                    arguments: [expert.group, expert.index, note.text])
            }
            for tag in tags.sorted() {
                try database.execute(
                    sql: "INSERT INTO tag VALUES (?, ?, ?)", arguments: [tag, expert.group, expert.index])
            }
        }
    }

    /// All tags with the number of their experts, most used first.
    public func tags() throws -> [(tag: String, experts: Int)] {
        guard hasNotes else { return [] }
        return try read { database in
            try rows(
                database,
                sql: "SELECT tag, COUNT(*) AS experts FROM tag GROUP BY tag ORDER BY experts DESC, tag"
            )
            .map { (try $0.text("tag"), try $0.integer("experts", 0..<Int.max)) }
        }
    }

    /// How many experts fire on a share of tokens or more, in one group or in all.
    public func count(minimumFrequency: Double = 0, group: Int? = nil) throws -> Int {
        try read { database in
            let condition = group.map { " AND router_group = \($0)" } ?? ""
            return try row(
                database, sql: "SELECT COUNT(*) AS n FROM expert WHERE frequency >= ?" + condition,
                [minimumFrequency])?.integer("n", 0..<Int.max) ?? 0
        }
    }

    /// What is known of some experts at a glance: the strongest label of the first set, and the most common top
    /// tokens.
    public func summaries(of experts: [UnitID], tokens count: Int = 4) throws -> [ExpertSummary] {
        let names =
            labelSets.first.map { Dictionary(uniqueKeysWithValues: $0.labels.map { ($0.id, $0.name) }) }
            ?? [:]
        return try read { database in
            try experts.map { expert in
                let key: StatementArguments = [expert.group, expert.index]
                let specialty = try row(
                    database,
                    sql:
                        "SELECT label, ratio FROM specialty WHERE set_id = 0 AND router_group = ? AND expert = ?",
                    key)
                let label = try specialty.map { try $0.integer("label", 0..<Int(UInt32.max)) }
                var scores: [(text: String, score: Double)] = []
                for firing in try firings(database, of: expert) {
                    let ids = try tokens(database, document: firing.document, from: firing.position, count: 1)
                    guard let id = ids.first else { continue }
                    let text = TokenText.joined([try self.text(database, of: Int(id))])
                        .trimmingCharacters(in: .whitespaces).onOneLine
                    if let place = scores.firstIndex(where: { $0.text == text }) {
                        scores[place].score += Double(firing.score)
                    } else {
                        scores.append((text, Double(firing.score)))
                    }
                }
                let tags =
                    hasNotes
                    ? try rows(
                        database,
                        sql: "SELECT tag FROM tag WHERE router_group = ? AND expert = ? ORDER BY tag", key
                    ).map { try $0.text("tag") } : []
                return ExpertSummary(
                    expert: expert, label: label.flatMap { names[$0] },
                    ratio: try specialty?.number("ratio"),
                    tokens: scores.sorted { ($1.score, $0.text) < ($0.score, $1.text) }.prefix(count).map(
                        \.text),
                    tags: tags)
            }
        }
    }
}

/// What is known of an expert at a glance.
public struct ExpertSummary: Sendable, Equatable {
    public let expert: UnitID
    /// The label with the largest mean score, and its ratio to the next; nil without labels.
    public let label: String?
    public let ratio: Double?
    /// The most common types among the top tokens.
    public let tokens: [String]
    public let tags: [String]
}
