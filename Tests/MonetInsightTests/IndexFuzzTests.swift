import Foundation
import GRDB
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

/// Indices and unfinished builds from strangers: whatever they hold, reading them ends in values or in an error.
@Suite struct IndexFuzzTests {
    private struct Built {
        let model: MonetLanguageModel
        let documents: LabelledDocuments
        let path: String
    }

    private func build(in folder: String) throws -> Built {
        let model = try ExpertIndexTests.model()
        let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
        let path = folder + "/i.sqlite"
        #expect(try ExpertIndexTests.builder(model, documents).build(at: path))
        let index = try ExpertIndex(path: path, writable: true)
        try index.replaceExplanations(
            of: UnitID(group: 0, index: 3), by: [.init(text: "sea", prompt: "p", isCredible: true)])
        return Built(model: model, documents: documents, path: path)
    }

    /// Everything that reads an index, with and without its model.
    ///
    /// - Returns: how many of the readings gave a value.
    private func readAll(_ path: String, _ model: MonetLanguageModel, _ random: inout SplitMix64) -> Int {
        var read = 0
        func attempt(_ body: () throws -> Void) {
            do {
                try body()
                read += 1
            } catch is InsightError {} catch is FileError {} catch is ModelError {
            } catch { Issue.record("\(type(of: error)): \(error)") }
        }
        for model in [nil, model] {
            attempt {
                let index = try ExpertIndex(path: path, model: model)
                for label in index.labelSets.flatMap(\.labels) {
                    attempt { _ = try index.mask(of: label, SpecialistCriterion(ratio: 1, minimumCount: 1)) }
                    attempt {
                        var query = ExpertQuery()
                        query.label = label
                        for found in try index.find(query) { _ = found.json().serialized() }
                    }
                }
                attempt { _ = try index.firingCounts() }
                for token in ["sea", "the", ""] {
                    attempt {
                        var query = ExpertQuery()
                        query.token = token
                        _ = try index.topTokens(of: index.find(query).map(\.expert), count: 5)
                    }
                }
                attempt { _ = try index.find(ExpertQuery()) }
                attempt { _ = try index.find(firedBy: [UnitID(group: 0, index: 3): 0.5]) }
                for turn in 0..<6 {
                    let id = UnitID(
                        group: Int(random.next() % UInt64(max(1, index.units.groups))),
                        index: Int(random.next() % UInt64(index.units.unitsPerGroup)))
                    attempt { _ = try index.topTokenIDs(of: id) }
                    attempt {
                        var dossier = try index.dossier(of: id)
                        if let model, turn == 0 {
                            attempt { try index.measureContexts(of: &dossier, model: model) }
                            attempt {
                                dossier.logitEffects = try index.logitEffects(of: id, model: model, places: 2)
                            }
                        }
                        _ =
                            dossier.text(usesColor: true) + dossier.json().serialized()
                            + dossier.html(origin: PageOrigin(command: "", model: "m", corpus: index.corpus))
                    }
                }
            }
        }
        return read
    }

    /// Values of every type in every column, in rows that are read.
    @Test func columnsOfOtherTypes() throws {
        try withTemporaryFolder { folder in
            let built = try build(in: folder)
            var random = SplitMix64(seed: 11)
            let whole = readAll(built.path, built.model, &random)
            let columns = try DatabaseQueue(path: built.path).read { database in
                try Row.fetchAll(
                    database,
                    sql: """
                        SELECT m.name AS name, c.name AS field FROM sqlite_schema m, pragma_table_info(m.name) c
                        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'
                        """
                ).map { (table: $0["name"] as String, column: $0["field"] as String) }
            }
            #expect(columns.count > 40)
            let values: [(any DatabaseValueConvertible)?] = [
                nil, 0, 1, -1, Int64.max, Int64.min, 99_999_999, 0.5, -1.5, 1e300, Double.infinity, "",
                "text", "12",
                "99999999999999999999", "experts", Data(), Data([1, 2, 3]), Data(repeating: 255, count: 48),
                Data(repeating: 127, count: 80), Data(repeating: 0, count: 12),
            ]
            var spoiled = 0
            for round in 0..<(300 * Mutator.factor) {
                let path = folder + "/copy.sqlite"
                try? FileManager.default.removeItem(atPath: path)
                try FileManager.default.copyItem(atPath: built.path, toPath: path)
                do {
                    try DatabaseQueue(path: path).write { database in
                        for _ in 0...Int(random.next() % 2) {
                            let (table, column) = columns[Int(random.next() % UInt64(columns.count))]
                            // Without constraints that would refuse what a stranger can write otherwise.
                            let value = values[Int(random.next() % UInt64(values.count))]
                            try database.execute(
                                sql: """
                                    UPDATE OR IGNORE \(table) SET \(column) = ?
                                    \(round % 3 == 0 ? "" : "WHERE abs(random()) % 3 = 0")
                                    """, arguments: [value])
                        }
                    }
                } catch is DatabaseError { continue }
                if readAll(path, built.model, &random) < whole { spoiled += 1 }
            }
            // Most changes are noticed; the others are values that an index may have.
            #expect(spoiled > 100 * Mutator.factor)
        }
    }

    /// SQL orders texts and bytes above all numbers: they must not make specialists.
    @Test(arguments: ["ratio", "frequency"], ["'abc'", "x'00'", "-1"])
    func specialistsAreNotMadeByValuesOfOtherTypes(column: String, value: String) throws {
        try withTemporaryFolder { folder in
            let built = try build(in: folder)
            try DatabaseQueue(path: built.path).writeWithoutTransaction { database in
                try database.execute(sql: "UPDATE OR IGNORE specialty SET \(column) = \(value)")
            }
            let index = try ExpertIndex(path: built.path)
            let label = try index.label("sea")
            #expect(throws: InsightError.self) { try index.specialists(of: label) }
        }
    }

    /// An index is renamed to its place, which would replace a pipe or a device.
    @Test func onlyFilesAreReplaced() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            #expect(mkfifo(folder + "/pipe", 0o600) == 0)
            for name in ["pipe", "."] {
                #expect(throws: FileError.self) {
                    try ExpertIndexTests.builder(model, documents).build(
                        at: folder + "/" + name, replacing: true)
                }
            }
            var status = stat()
            #expect(stat(folder + "/pipe", &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
        }
    }

    /// Views that never end, triggers, tables of other columns.
    @Test func foreignSchemas() throws {
        try withTemporaryFolder { folder in
            let built = try build(in: folder)
            let changes = [
                """
                ALTER TABLE expert RENAME TO other; CREATE VIEW expert AS WITH RECURSIVE r(n) AS
                (SELECT 0 UNION ALL SELECT n + 1 FROM r) SELECT n AS router_group, n AS expert, 0 AS mean,
                0 AS frequency, 0 AS count, 0 AS max, 0 AS token_concentration FROM r;
                """,
                "CREATE TRIGGER t AFTER INSERT ON explanation BEGIN DELETE FROM expert; END;",
                "DROP TABLE detail;", "DROP TABLE meta; CREATE TABLE meta (key, value);",
                "ALTER TABLE specialty ADD COLUMN more TEXT;", "PRAGMA user_version = 1;",
                "PRAGMA application_id = 0;",
                "UPDATE meta SET value = '99999999' WHERE key = 'experts_per_side';",
                "UPDATE meta SET value = '9223372036854775807' WHERE key LIKE '%per%';",
                "UPDATE meta SET value = '4194304' WHERE key = 'units_per_group';",
                "DELETE FROM meta WHERE key = 'vocabulary';",
            ]
            for change in changes {
                let path = folder + "/copy.sqlite"
                try? FileManager.default.removeItem(atPath: path)
                try FileManager.default.copyItem(atPath: built.path, toPath: path)
                try DatabaseQueue(path: path).writeWithoutTransaction { try $0.execute(sql: change) }
                #expect(throws: InsightError.self, "\(change)") { try ExpertIndex(path: path) }
            }
        }
    }

    /// Bytes of the file itself.
    @Test func alteredFiles() throws {
        try withTemporaryFolder { folder in
            let built = try build(in: folder)
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: built.path)))
            var random = SplitMix64(seed: 12)
            for _ in 0..<(60 * Mutator.factor) {
                var altered = bytes
                for _ in 0...Int(random.next() % 8) {
                    altered[Int(random.next() % UInt64(altered.count))] = UInt8(random.next() % 256)
                }
                if random.next() % 4 == 0 { altered.removeLast(Int(random.next() % UInt64(altered.count))) }
                try Data(altered).write(to: URL(fileURLWithPath: folder + "/copy.sqlite"))
                _ = readAll(folder + "/copy.sqlite", built.model, &random)
            }
        }
    }

    /// A changed state of an unfinished build is refused, and never continued to another index.
    @Test func alteredUnfinishedBuilds() throws {
        try withTemporaryFolder { folder in
            let built = try build(in: folder)
            let path = folder + "/part.sqlite"
            #expect(
                try !ExpertIndexTests.builder(built.model, built.documents).build(at: path) { _ in false })
            let state = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path + ".partial")))
            var random = SplitMix64(seed: 13)
            var refused = 0
            for _ in 0..<(150 * Mutator.factor) {
                var altered = state
                switch random.next() % 3 {
                case 0:
                    altered[4096 + Int(random.next() % UInt64(state.count - 4096))] ^=
                        1 << UInt8(random.next() % 8)
                case 1: altered = Mutator.mutated([Array(state[..<300])], &random) + state[300...]
                default: altered.removeLast(Int(random.next() % UInt64(state.count)))
                }
                try Data(altered).write(to: URL(fileURLWithPath: path + ".partial"))
                do {
                    let isComplete = try ExpertIndexTests.builder(built.model, built.documents).build(
                        at: path)
                    #expect(isComplete && altered[4096...] == state[4096...])
                    try FileManager.default.removeItem(atPath: path)
                } catch is InsightError { refused += 1 } catch is FileError { refused += 1 }
            }
            #expect(refused > 75 * Mutator.factor)
        }
    }
}
