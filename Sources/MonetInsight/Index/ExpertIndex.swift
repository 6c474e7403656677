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
    /// Tokens per window in which documents were read.
    public let window: Int
    let vocabularySize: Int
    /// Whether notes, tags and explanations can be stored.
    public let isWritable: Bool
    let hasNotes: Bool
    private let database: IndexDatabase
    private var queue: DatabaseQueue { database.queue }

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

    /// Opens an index and checks its schema and sizes.
    ///
    /// - `model`: refuses an index of another model.
    /// - `writable`: whether explanations, notes and tags will be added.
    /// - Throws: `FileError.unreadable`, `InsightError`.
    public init(path: String, model: MonetLanguageModel? = nil, writable: Bool = false) throws {
        try MappedFile.requireRegularFile(path)
        self.path = path
        isWritable = writable
        do {
            var configuration = Configuration()
            configuration.readonly = !writable
            configuration.prepareDatabase { database in
                // Nothing in a stranger's file may call functions.
                try database.execute(sql: "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
            }
            database = try IndexDatabase(path: path, configuration: configuration)
            if writable {
                _ = try database.queue.read { try IndexSchema.check($0, path: path) }
                try database.queue.write { try IndexSchema.upgrade($0) }
            }
            let (hasNotes, meta, sets) = try database.queue.read { database in
                let hasNotes = try IndexSchema.check(database, path: path)
                let meta = try IndexMetadata(database, path: path)
                return (hasNotes, meta, try Self.labelSets(database, meta, path: path))
            }
            self.hasNotes = hasNotes
            (units, tokens, documents) = (meta.units, meta.tokens, meta.documents)
            (window, vocabularySize) = (meta.window, meta.vocabularySize)
            (modelPath, modelFingerprint, corpus) = (meta.modelPath, meta.model, meta.corpus)
            labelSets = sets
        } catch let error as DatabaseError {
            throw InsightError.malformedIndex(path: path, reason: error.message ?? "\(error)")
        }
        if let model { try require(model) }
    }

    /// Checks that the index is of a model, or of one that it was tuned from.
    ///
    /// - Throws: `InsightError.foreignIndex`, and `InsightError.malformedIndex` where only its name is.
    public func require(_ model: MonetLanguageModel) throws {
        guard model.descends(from: modelFingerprint) else {
            throw InsightError.foreignIndex(path: path, expected: model.fingerprint, found: modelFingerprint)
        }
        guard model.units == units, model.configuration.vocabularySize == vocabularySize,
            window <= model.configuration.contextLength
        else {
            throw InsightError.malformedIndex(
                path: path, reason: "it describes other experts, tokens or windows than its model has")
        }
    }

    private static func labelSets(_ database: Database, _ meta: IndexMetadata, path: String) throws
        -> [LabelSet]
    {
        func rows(_ sql: String, _ arguments: StatementArguments = StatementArguments()) throws -> [IndexRow]
        {
            try Row.fetchAll(database, sql: sql, arguments: arguments).map { IndexRow($0, path: path) }
        }
        // Labels are numbered across all sets, in the order of the lists of their numbers.
        var number = 0
        return try rows("SELECT id, name FROM label_set ORDER BY id").enumerated().map { place, set in
            let id = try set.integer("id", place..<(place + 1))
            let labels = try rows(
                "SELECT id, name, documents, tokens FROM label WHERE set_id = ? ORDER BY id", [id])
            return LabelSet(
                id: id, name: try set.text("name"),
                labels: try labels.map { row in
                    defer { number += 1 }
                    return Label(
                        id: try row.integer("id", number..<(number + 1)), name: try row.text("name"),
                        documents: try row.integer("documents", 0..<(meta.documents + 1)),
                        tokens: try row.integer("tokens", 0..<(meta.tokens + 1)))
                })
        }
    }

    /// Runs a query; SQLite's errors become errors that name the file.
    func read<Value>(_ body: (Database) throws -> Value) throws -> Value {
        do {
            return try queue.read(body)
        } catch let error as DatabaseError {
            throw InsightError.malformedIndex(path: path, reason: error.message ?? "\(error)")
        } catch let error as RowDecodingError {
            throw InsightError.malformedIndex(path: path, reason: "\(error)")
        }
    }

    /// The label set called `name`, or the only one.
    ///
    /// - Throws: `InsightError.noLabels`, `InsightError.unknownLabelSet`.
    public func labelSet(_ name: String? = nil) throws -> LabelSet {
        guard let first = labelSets.first else { throw InsightError.noLabels(origin: path) }
        guard let name else { return first }
        guard let set = labelSets.first(where: { $0.name == name }) else {
            throw InsightError.unknownLabelSet(name: name, known: labelSets.map(\.name), origin: path)
        }
        return set
    }

    /// A label by name, in one set or the first that has it.
    public func label(_ name: String, set: String? = nil) throws -> Label {
        let sets = try set.map { [try labelSet($0)] } ?? labelSets
        guard !sets.isEmpty else { throw InsightError.noLabels(origin: path) }
        let holders = sets.filter { $0.labels.contains { $0.name == name } }
        guard holders.count < 2 else {
            throw InsightError.invalidSetting(
                name: "\(path): the label '\(name)'",
                found: "in the sets \(holders.map(\.name).joined(separator: " and "))",
                expected: "one of them to be named")
        }
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
        let least = minimumFrequency(criterion)
        return try read { database in
            try rows(
                database,
                sql: """
                    SELECT router_group, expert, ratio, frequency FROM specialty
                    WHERE label = ? ORDER BY router_group, expert
                    """, [label.id]
            ).compactMap { row in
                // Compared here, because SQL orders values of other types above all numbers.
                let isChosen =
                    try row.number("ratio") >= criterion.ratio && row.share("frequency") >= least
                return isChosen ? try expert(row) : nil
            }
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
        try MemoryLimits.require(
            4 * units.count, for: "\(path): the counts of \(units.count.grouped) \(units.kind.rawValue)")
        var counts = Array(
            repeating: [UInt32](repeating: 0, count: units.unitsPerGroup), count: units.groups)
        try read { database in
            let rows = try Row.fetchCursor(database, sql: "SELECT router_group, expert, count FROM expert")
            while let row = try rows.next().map({ IndexRow($0, path: path) }) {
                let id = try expert(row)
                counts[id.group][id.index] = UInt32(try row.integer("count", 0..<(tokens + 1)))
            }
        }
        return FiringCounts(units: units, counts: counts, tokens: tokens)
    }

    /// The ids of an expert's top tokens, largest score first.
    public func topTokenIDs(of expert: UnitID) throws -> [Int32] {
        try read { database in
            try firings(database, of: expert).map { firing in
                let ids = try tokens(
                    database, document: firing.document, from: firing.position, count: 1)
                guard let id = ids.first else {
                    throw InsightError.malformedIndex(
                        path: path, reason: "document \(firing.document) has no token \(firing.position)")
                }
                return id
            }
        }
    }

    /// An expert's top tokens, largest score first; none if it never fired.
    func firings(_ database: Database, of expert: UnitID) throws -> [IndexedFiring] {
        try row(
            database, sql: "SELECT activations FROM detail WHERE router_group = ? AND expert = ?",
            [expert.group, expert.index])?.firings("activations", documents: documents) ?? []
    }

    /// Runs statements that change the index; SQLite's errors become errors that name the file.
    func write(_ body: (Database) throws -> Void) throws {
        guard isWritable else {
            throw InsightError.unwritableIndex(path: path, reason: "it is open for reading only")
        }
        do {
            try queue.write(body)
        } catch let error as DatabaseError {
            throw InsightError.unwritableIndex(path: path, reason: error.message ?? "\(error)")
        }
    }

    /// Stores descriptions of an expert in place of some earlier ones. The index must be open for writing.
    ///
    /// - `isReplaced`: whether an earlier description goes; by default, all do.
    /// - Throws: `InsightError.unwritableIndex`, `InsightError.malformedIndex`.
    public func replaceExplanations(
        of expert: UnitID, by explanations: [ExpertDossier.Explanation],
        where isReplaced: (ExpertDossier.Explanation) -> Bool = { _ in true }
    ) throws {
        let kept = try self.explanations(of: expert).filter { !isReplaced($0) }
        try write { database in
            try database.execute(
                sql: "DELETE FROM explanation WHERE router_group = ? AND expert = ?",
                arguments: [expert.group, expert.index])
            for (sample, explanation) in (kept + explanations).enumerated() {
                try database.execute(
                    sql: "INSERT INTO explanation VALUES (?, ?, ?, ?, ?, ?)",
                    arguments: [
                        expert.group, expert.index, sample, explanation.text, explanation.prompt,
                        explanation.isCredible,
                    ])
            }
        }
    }

    /// The descriptions of an expert, in the order in which they were stored.
    public func explanations(of expert: UnitID) throws -> [ExpertDossier.Explanation] {
        try read { try explanations($0, of: expert) }
    }

    func explanations(_ database: Database, of expert: UnitID) throws -> [ExpertDossier.Explanation] {
        try rows(
            database,
            sql: """
                SELECT text, prompt, is_credible FROM explanation
                WHERE router_group = ? AND expert = ? ORDER BY sample
                """, [expert.group, expert.index]
        ).map {
            ExpertDossier.Explanation(
                text: try $0.text("text"), prompt: try $0.text("prompt"),
                isCredible: try $0.integer("is_credible", 0..<2) == 1)
        }
    }
}
