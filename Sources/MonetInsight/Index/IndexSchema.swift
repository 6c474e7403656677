import GRDB

/// The tables of an expert index, an SQLite file. `Docs/Monet.docc/ExpertIndex.md` describes them.
package enum IndexSchema {
    /// `PRAGMA user_version`; an index of another version is refused.
    package static let version = 3
    /// A version without the tables of notes, which are added when such an index is opened for writing.
    static let versionWithoutNotes = 2
    /// `PRAGMA application_id`: "MnEx".
    static let application: Int32 = 0x4d6e_4578

    /// The statements that create the tables, by name.
    static let tables = named(statements) + noteTables

    /// The tables that users write to.
    private static let noteTables = named(
        """
        CREATE TABLE note (
            router_group INTEGER NOT NULL, expert INTEGER NOT NULL, text TEXT NOT NULL,
            PRIMARY KEY (router_group, expert)) WITHOUT ROWID;
        CREATE TABLE tag (
            tag TEXT NOT NULL, router_group INTEGER NOT NULL, expert INTEGER NOT NULL,
            PRIMARY KEY (tag, router_group, expert)) WITHOUT ROWID
        """)

    private static func named(_ statements: String) -> [(name: String, sql: String)] {
        statements.split(separator: ";").map {
            let sql = $0.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            return (String(sql.split(separator: " ")[2]), sql)
        }
    }

    /// Adds the tables that an older index lacks.
    static func upgrade(_ database: Database) throws {
        guard try Int.fetchOne(database, sql: "PRAGMA user_version") == versionWithoutNotes else { return }
        for table in noteTables { try database.execute(sql: table.sql) }
        try database.execute(sql: "PRAGMA user_version = \(version)")
    }

    private static let statements = """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE label_set (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
        CREATE TABLE label (
            id INTEGER PRIMARY KEY, set_id INTEGER NOT NULL REFERENCES label_set(id), name TEXT NOT NULL,
            documents INTEGER NOT NULL, tokens INTEGER NOT NULL, UNIQUE (set_id, name));
        CREATE TABLE token (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
        CREATE TABLE document (id INTEGER PRIMARY KEY, tokens BLOB NOT NULL);
        CREATE TABLE document_label (
            document INTEGER NOT NULL, label INTEGER NOT NULL REFERENCES label(id),
            PRIMARY KEY (document, label)) WITHOUT ROWID;
        CREATE TABLE expert (
            router_group INTEGER NOT NULL, expert INTEGER NOT NULL, mean REAL NOT NULL,
            frequency REAL NOT NULL, count INTEGER NOT NULL, max REAL NOT NULL,
            token_concentration REAL NOT NULL, PRIMARY KEY (router_group, expert)) WITHOUT ROWID;
        CREATE TABLE detail (
            router_group INTEGER NOT NULL, expert INTEGER NOT NULL, histogram BLOB NOT NULL,
            activations BLOB NOT NULL, samples BLOB NOT NULL, label_means BLOB NOT NULL,
            label_counts BLOB NOT NULL,
            PRIMARY KEY (router_group, expert)) WITHOUT ROWID;
        CREATE TABLE specialty (
            set_id INTEGER NOT NULL, router_group INTEGER NOT NULL, expert INTEGER NOT NULL,
            label INTEGER NOT NULL, mean REAL NOT NULL, ratio REAL NOT NULL, entropy REAL NOT NULL,
            frequency REAL NOT NULL, PRIMARY KEY (set_id, router_group, expert)) WITHOUT ROWID;
        CREATE TABLE expert_token (
            token INTEGER NOT NULL, share REAL NOT NULL, router_group INTEGER NOT NULL,
            expert INTEGER NOT NULL, score REAL NOT NULL,
            PRIMARY KEY (token, share DESC, router_group, expert)) WITHOUT ROWID;
        CREATE TABLE explanation (
            router_group INTEGER NOT NULL, expert INTEGER NOT NULL, sample INTEGER NOT NULL,
            text TEXT NOT NULL, prompt TEXT NOT NULL, is_credible INTEGER NOT NULL,
            PRIMARY KEY (router_group, expert, sample)) WITHOUT ROWID
        """

    /// Created after the rows are inserted, which is faster.
    static let indices = """
        CREATE INDEX expert_by_frequency ON expert (frequency DESC);
        CREATE INDEX expert_by_mean ON expert (mean DESC);
        CREATE INDEX expert_by_max ON expert (max DESC);
        CREATE INDEX specialty_by_ratio ON specialty (label, ratio DESC, frequency);
        CREATE INDEX specialty_by_mean ON specialty (label, mean DESC, frequency);
        CREATE INDEX token_by_text ON token (trim(text));
        ANALYZE;
        """

    /// Stored as the ratio of a label if there is no second one.
    static let onlyLabelRatio = 1e9

    /// Checks that a database is an index of this version, with these tables and nothing that runs by itself.
    ///
    /// - Throws: `InsightError.malformedIndex`, `InsightError.unsupportedSchema`.
    /// - Returns: whether it has the tables of notes.
    static func check(_ database: Database, path: String) throws -> Bool {
        func fail(_ reason: String) -> InsightError { .malformedIndex(path: path, reason: reason) }
        guard try Int32.fetchOne(database, sql: "PRAGMA application_id") == application else {
            throw fail("it is another kind of SQLite file")
        }
        let found = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
        guard found == version || found == versionWithoutNotes else {
            throw InsightError.unsupportedSchema(path: path, found: found, expected: version)
        }
        let hasNotes = found == version
        var known = Dictionary(
            uniqueKeysWithValues: (hasNotes ? tables : named(statements)).map { ($0.name, $0.sql) })
        for row in try Row.fetchAll(database, sql: "SELECT type, name, sql FROM sqlite_schema") {
            let entry = IndexRow(row, path: path)
            let (type, name) = (try entry.text("type"), try entry.text("name"))
            // Views and triggers could stand for endless queries.
            guard type == "table" || type == "index" else { throw fail("it has a \(type), \(name)") }
            guard type == "table", let expected = known.removeValue(forKey: name) else { continue }
            let sql = try entry.text("sql").split(whereSeparator: \.isWhitespace).joined(separator: " ")
            guard sql == expected else { throw fail("table \(name) has other columns") }
        }
        if let missing = known.keys.min() { throw fail("there is no table \(missing)") }
        return hasNotes
    }
}
