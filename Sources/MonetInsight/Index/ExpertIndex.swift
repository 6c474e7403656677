import Foundation
import GRDB
import MonetFoundation
import MonetModel

/// An expert index: an SQLite file that records what every expert of a model fires on.
///
///     let index = try ExpertIndex(path: "experts.sqlite")
///     let dossier = try index.dossier(of: UnitID(group: 0, index: 1777))
public final class ExpertIndex: Sendable {
    /// The file.
    public let path: String
    /// The units of the model.
    public let units: UnitLayout
    /// The numbers of tokens and documents that were read.
    public let tokens: Int
    public let documents: Int
    /// The folder of the model at the time, and its fingerprint.
    public let modelPath: String
    public let modelFingerprint: String
    /// Where the documents came from.
    public let corpus: String
    /// Kinds of labels with their labels.
    public let labelSets: [LabelSet]
    let queue: DatabaseQueue

    /// A kind of label, such as the domain.
    public struct LabelSet: Sendable, Equatable {
        public let id: Int
        public let name: String
        public let labels: [Label]
    }

    /// A label, with the numbers of documents and tokens that have it.
    public struct Label: Sendable, Equatable {
        /// Its index among the labels of all sets.
        public let id: Int
        public let name: String
        public let documents: Int
        public let tokens: Int
    }

    /// Opens an index and checks its schema.
    ///
    /// - `model`: refuses an index of another model.
    /// - `writable`: whether explanations will be added.
    /// - Throws: `FileError.unreadable`, `InsightError`.
    public init(path: String, model: MonetLanguageModel? = nil, writable: Bool = false) throws {
        guard FileManager.default.fileExists(atPath: path) else {
            throw FileError.unreadable(path: path, reason: "there is no such file")
        }
        self.path = path
        do {
            var configuration = Configuration()
            configuration.readonly = !writable
            queue = try DatabaseQueue(path: path, configuration: configuration)
            let (meta, sets) = try queue.read { database in
                let version = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
                guard try Int32.fetchOne(database, sql: "PRAGMA application_id") == IndexSchema.application
                else {
                    throw InsightError.malformedIndex(path: path, reason: "it is another kind of SQLite file")
                }
                guard version == IndexSchema.version else {
                    throw InsightError.unsupportedSchema(
                        path: path, found: version, expected: IndexSchema.version)
                }
                return (try Self.metadata(database), try Self.labelSets(database))
            }
            func number(_ key: String) throws -> Int {
                guard let value = meta[key].flatMap({ Int($0) }), value >= 0 else {
                    throw InsightError.malformedIndex(path: path, reason: "meta has no number \"\(key)\"")
                }
                return value
            }
            let (groups, side) = (try number("groups"), try number("experts_per_side"))
            let total = try meta["units_per_group"] == nil ? side * side : number("units_per_group")
            tokens = try number("tokens")
            documents = try number("documents")
            let (layers, perRouter) = (try number("layers"), max(1, try number("layers_per_router")))
            units = UnitLayout(
                kind: meta["units"].flatMap { UnitLayout.Kind(rawValue: $0) } ?? .experts,
                layersOfGroup: (0..<groups).map {
                    ($0 * perRouter)...max($0 * perRouter, min(layers, ($0 + 1) * perRouter) - 1)
                },
                unitsPerGroup: total, perSide: side > 0 ? side : nil, heads: try number("routing_heads"))
            modelPath = meta["model_path"] ?? ""
            modelFingerprint = meta["model"] ?? ""
            corpus = meta["corpus"] ?? ""
            labelSets = sets
        } catch let error as DatabaseError {
            throw InsightError.malformedIndex(path: path, reason: error.message ?? "\(error)")
        }
        if let model, model.fingerprint != modelFingerprint {
            throw InsightError.foreignIndex(path: path, expected: model.fingerprint, found: modelFingerprint)
        }
    }

    private static func metadata(_ database: Database) throws -> [String: String] {
        let rows = try Row.fetchAll(database, sql: "SELECT key, value FROM meta")
        return Dictionary(rows.map { ($0["key"], $0["value"]) }, uniquingKeysWith: { first, _ in first })
    }

    private static func labelSets(_ database: Database) throws -> [LabelSet] {
        try Row.fetchAll(database, sql: "SELECT id, name FROM label_set ORDER BY id").map { set in
            let id: Int = set["id"]
            let labels = try Row.fetchAll(
                database, sql: "SELECT id, name, documents, tokens FROM label WHERE set_id = ? ORDER BY id",
                arguments: [id])
            return LabelSet(
                id: id, name: set["name"],
                labels: labels.map {
                    Label(id: $0["id"], name: $0["name"], documents: $0["documents"], tokens: $0["tokens"])
                })
        }
    }

    /// Runs a query; SQLite's errors become errors that name the file.
    func read<Value>(_ body: (Database) throws -> Value) throws -> Value {
        do {
            return try queue.read(body)
        } catch let error as DatabaseError {
            throw InsightError.malformedIndex(path: path, reason: error.message ?? "\(error)")
        }
    }

    /// The label set called `name`, or the only one.
    ///
    /// - Throws: `InsightError.noLabels`, `InsightError.unknownLabel`.
    public func labelSet(_ name: String? = nil) throws -> LabelSet {
        guard let first = labelSets.first else { throw InsightError.noLabels(origin: path) }
        guard let name else { return first }
        guard let set = labelSets.first(where: { $0.name == name }) else {
            throw InsightError.unknownLabel(label: name, known: labelSets.map(\.name), origin: path)
        }
        return set
    }

    /// A label by name, in one set or the first that has it.
    public func label(_ name: String, set: String? = nil) throws -> Label {
        let sets = try set.map { [try labelSet($0)] } ?? labelSets
        guard !sets.isEmpty else { throw InsightError.noLabels(origin: path) }
        guard let label = sets.flatMap(\.labels).first(where: { $0.name == name }) else {
            throw InsightError.unknownLabel(
                label: name, known: sets.flatMap(\.labels).map(\.name), origin: path)
        }
        return label
    }

    /// The specialists of a label by a criterion.
    public func specialists(
        of label: Label, _ criterion: SpecialistCriterion = SpecialistCriterion()
    ) throws -> [UnitID] {
        try read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT router_group, expert FROM specialty
                    WHERE label = ? AND ratio >= ? AND frequency >= ? ORDER BY router_group, expert
                    """, arguments: [label.id, criterion.ratio, minimumFrequency(criterion)]
            ).map { UnitID(group: $0["router_group"], index: $0["expert"]) }
        }
    }

    /// The share of tokens by which an expert fires often enough in both respects.
    func minimumFrequency(_ criterion: SpecialistCriterion) -> Double {
        // Half a token less, so that rounding of the quotient does not decide.
        max(criterion.minimumFrequency, (Double(criterion.minimumCount) - 0.5) / Double(max(1, tokens)))
    }

    /// A mask that removes a label's specialists.
    public func mask(
        of label: Label, _ criterion: SpecialistCriterion = SpecialistCriterion()
    ) throws -> UnitMask {
        var mask = UnitMask(units)
        let experts = try specialists(of: label, criterion)
        for group in 0..<units.groups {
            mask.remove(experts.filter { $0.group == group }.map(\.index), group: group)
        }
        return mask
    }

    /// How many tokens each expert fires on.
    public func firingCounts() throws -> FiringCounts {
        var counts = Array(
            repeating: [UInt32](repeating: 0, count: units.unitsPerGroup), count: units.groups)
        try read { database in
            let rows = try Row.fetchCursor(database, sql: "SELECT router_group, expert, count FROM expert")
            while let row = try rows.next() {
                let (group, index): (Int, Int) = (row["router_group"], row["expert"])
                counts[group][index] = row["count"]
            }
        }
        return FiringCounts(units: units, counts: counts, tokens: tokens)
    }

    /// The ids of an expert's top tokens, largest score first.
    public func topTokenIDs(of expert: UnitID) throws -> [Int32] {
        try read { database in
            let words =
                try Data.fetchOne(
                    database, sql: "SELECT activations FROM detail WHERE router_group = ? AND expert = ?",
                    arguments: [expert.group, expert.index]
                )?.littleEndianWords ?? []
            return try (0..<(words.count / 3)).compactMap { place in
                try Data.fetchOne(
                    database, sql: "SELECT substr(tokens, ?, 4) FROM document WHERE id = ?",
                    arguments: [4 * Int(words[3 * place + 2]) + 1, Int(words[3 * place + 1])]
                )?.littleEndianWords.first.map { Int32(bitPattern: $0) }
            }
        }
    }

    /// Stores descriptions of an expert, replacing earlier ones. The index must be open for writing.
    ///
    /// - Throws: `InsightError.unwritableIndex`.
    public func replaceExplanations(of expert: UnitID, by explanations: [ExpertDossier.Explanation]) throws {
        do {
            try queue.write { database in
                try database.execute(
                    sql: "DELETE FROM explanation WHERE router_group = ? AND expert = ?",
                    arguments: [expert.group, expert.index])
                for (sample, explanation) in explanations.enumerated() {
                    try database.execute(
                        sql: "INSERT INTO explanation VALUES (?, ?, ?, ?, ?, ?)",
                        arguments: [
                            expert.group, expert.index, sample, explanation.text, explanation.prompt,
                            explanation.isCredible,
                        ])
                }
            }
        } catch let error as DatabaseError {
            throw InsightError.unwritableIndex(path: path, reason: error.message ?? "\(error)")
        }
    }
}
