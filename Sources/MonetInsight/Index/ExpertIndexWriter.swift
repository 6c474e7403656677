import Foundation
import GRDB
import MonetFoundation
import MonetText

/// Writes statistics as an SQLite file, under a temporary name until it is complete.
struct ExpertIndexWriter {
    let documents: LabelledDocuments
    /// Running number of each document's first token, followed by the number of all tokens.
    let starts: [Int]
    let vocabularySize: Int
    let tokenizer: Tokenizer?

    /// Token types stored for searches by token: the strongest of each expert's top tokens.
    private static let tokensOfExpert = 5

    /// - Throws: `InsightError.unwritableIndex`, `TextError`.
    func write(_ statistics: [GroupStatistics], metadata: [(key: String, value: String)], to path: String)
        throws
    {
        let temporary = path + ".tmp-\(getpid())"
        unlink(temporary)
        do {
            var configuration = Configuration()
            configuration.label = "expert index"
            let connection = try IndexDatabase(path: temporary, configuration: configuration)
            let queue = connection.queue
            try queue.writeWithoutTransaction { database in
                // Nothing reads the file before it is complete and renamed.
                try database.execute(sql: "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
                try database.execute(sql: "PRAGMA application_id = \(IndexSchema.application);")
                try database.execute(sql: "PRAGMA user_version = \(IndexSchema.version);")
                try database.inTransaction {
                    for table in IndexSchema.tables { try database.execute(sql: table.sql) }
                    try writeLabels(database, metadata)
                    try writeExperts(database, statistics)
                    try database.execute(sql: IndexSchema.indices)
                    return .commit
                }
            }
            try queue.close()
            try Self.synchronize(temporary)
            guard rename(temporary, path) == 0 else {
                throw InsightError.unwritableIndex(path: path, reason: String(cString: strerror(errno)))
            }
        } catch let error as DatabaseError {
            unlink(temporary)
            throw InsightError.unwritableIndex(path: path, reason: error.message ?? "\(error)")
        } catch {
            unlink(temporary)
            throw error
        }
    }

    private static func synchronize(_ path: String) throws {
        let descriptor = open(path, O_RDONLY)
        defer { if descriptor >= 0 { close(descriptor) } }
        guard descriptor >= 0, fsync(descriptor) == 0 else {
            throw InsightError.unwritableIndex(path: path, reason: String(cString: strerror(errno)))
        }
    }

    private func writeLabels(_ database: Database, _ metadata: [(key: String, value: String)]) throws {
        for (key, value) in metadata {
            try database.execute(sql: "INSERT INTO meta VALUES (?, ?)", arguments: [key, value])
        }
        let tokens = tokensOfLabels
        var counts = Array(repeating: 0, count: tokens.count)
        for document in 0..<documents.count {
            for label in documents.labelNumbers(document) { counts[label] += 1 }
        }
        var number = 0
        for (set, labels) in documents.labelSets.enumerated() {
            try database.execute(sql: "INSERT INTO label_set VALUES (?, ?)", arguments: [set, labels.name])
            for label in labels.labels {
                try database.execute(
                    sql: "INSERT INTO label VALUES (?, ?, ?, ?, ?)",
                    arguments: [number, set, label, counts[number], tokens[number]])
                number += 1
            }
        }
        let insert = try database.makeStatement(sql: "INSERT INTO token VALUES (?, ?)")
        for id in 0..<vocabularySize {
            let known = tokenizer.map { id < $0.vocabularySize } ?? false
            let text = known ? try tokenizer?.displayText(Int32(id)) ?? "" : "\(id)"
            try insert.execute(arguments: [id, text])
        }
    }

    /// Tokens of each label, for labels numbered across all sets.
    private var tokensOfLabels: [Int] {
        var result = Array(repeating: 0, count: documents.labelSets.reduce(0) { $0 + $1.labels.count })
        for document in 0..<documents.count {
            for label in documents.labelNumbers(document) { result[label] += documents.tokenCount(document) }
        }
        return result
    }

    private func writeExperts(_ database: Database, _ statistics: [GroupStatistics]) throws {
        let total = Double(starts[documents.count])
        let labelTokens = tokensOfLabels.map(Double.init)
        let expertRow = try database.makeStatement(sql: "INSERT INTO expert VALUES (?, ?, ?, ?, ?, ?, ?)")
        let detailRow = try database.makeStatement(sql: "INSERT INTO detail VALUES (?, ?, ?, ?, ?, ?, ?)")
        let specialtyRow = try database.makeStatement(
            sql: "INSERT INTO specialty VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        var shown: Set<Int> = []
        var tokenRows: [(token: Int32, share: Double, group: Int, expert: Int, score: Double)] = []
        var tokensOfDocument: (document: Int, tokens: [Int32]) = (-1, [])
        // Top tokens are looked up in the order of documents, so that each document is read once.
        for (group, statistic) in statistics.enumerated() {
            let tokens = tokenIDs(statistic, &shown, &tokensOfDocument)
            for expert in 0..<statistic.experts where statistic.count(expert) > 0 {
                let frequency = Double(statistic.count(expert)) / total
                let top = topTypes(statistic, expert, tokens)
                try expertRow.execute(arguments: [
                    group, expert, statistic.sum(expert) / total, frequency,
                    statistic.count(expert), statistic.topTokens(expert).first?.score ?? 0,
                    top.first?.share ?? 0,
                ])
                let means = statistic.labelMeans(expert, labelTokens)
                try detailRow.execute(arguments: [
                    group, expert, Data(littleEndian: statistic.histogram(expert)),
                    firings(statistic.topTokens(expert)), firings(statistic.samples(expert)),
                    Data(littleEndian: means.map { Float($0).bitPattern }),
                    Data(littleEndian: statistic.labelCounts(expert)),
                ])
                var first = 0
                for (set, labels) in documents.labelSets.enumerated() {
                    let own = Array(means[first..<(first + labels.labels.count)])
                    if let specialty = LabelSpecialty(means: own) {
                        try specialtyRow.execute(arguments: [
                            set, group, expert, first + specialty.label, specialty.mean,
                            min(specialty.ratio, IndexSchema.onlyLabelRatio), specialty.entropy, frequency,
                        ])
                    }
                    first += labels.labels.count
                }
                for type in top.prefix(Self.tokensOfExpert) {
                    tokenRows.append((type.token, type.share, group, expert, type.score))
                }
            }
        }
        tokenRows.sort {
            ($0.token, -$0.share, $0.group, $0.expert) < ($1.token, -$1.share, $1.group, $1.expert)
        }
        let tokenRow = try database.makeStatement(sql: "INSERT INTO expert_token VALUES (?, ?, ?, ?, ?)")
        for row in tokenRows {
            try tokenRow.execute(arguments: [Int(row.token), row.share, row.group, row.expert, row.score])
        }
        try writeDocuments(database, shown.sorted())
    }

    private func writeDocuments(_ database: Database, _ shown: [Int]) throws {
        let row = try database.makeStatement(sql: "INSERT INTO document VALUES (?, ?)")
        let label = try database.makeStatement(sql: "INSERT INTO document_label VALUES (?, ?)")
        for document in shown {
            try row.execute(arguments: [
                document, Data(littleEndian: documents.tokens(document).map { UInt32(bitPattern: $0) }),
            ])
            for number in documents.labelNumbers(document) {
                try label.execute(arguments: [document, number])
            }
        }
    }

    /// The document of a token by its running number.
    private func document(of token: Int) -> Int {
        var (low, high) = (0, documents.count)
        while low + 1 < high {
            let middle = (low + high) / 2
            if starts[middle] <= token { low = middle } else { high = middle }
        }
        return low
    }

    /// The ids of all top tokens by running number, and the documents that contain them.
    private func tokenIDs(
        _ statistic: GroupStatistics, _ shown: inout Set<Int>,
        _ current: inout (document: Int, tokens: [Int32])
    ) -> [UInt32: Int32] {
        var result: [UInt32: Int32] = [:]
        for expert in 0..<statistic.experts {
            for (_, token) in statistic.topTokens(expert) { result[token] = 0 }
            for (_, token) in statistic.samples(expert) { result[token] = 0 }
        }
        for token in result.keys.sorted() {
            let document = document(of: Int(token))
            if document != current.document {
                current = (document, documents.tokens(document))
                shown.insert(document)
            }
            shown.insert(document)
            result[token] = current.tokens[Int(token) - starts[document]]
        }
        return result
    }

    /// The types of an expert's top tokens, largest share of the summed scores first.
    private func topTypes(_ statistic: GroupStatistics, _ expert: Int, _ tokens: [UInt32: Int32]) -> [(
        token: Int32, share: Double, score: Double
    )] {
        var scores: [Int32: Double] = [:]
        for (score, token) in statistic.topTokens(expert) {
            scores[tokens[token] ?? -1, default: 0] += Double(score)
        }
        let sum = scores.values.reduce(0, +)
        return scores.map { (token: $0.key, share: $0.value / sum, score: $0.value) }
            .sorted { ($1.share, $0.token) < ($0.share, $1.token) }
    }

    private func firings(_ tokens: [(score: Float, token: UInt32)]) -> Data {
        Data(
            littleEndian: tokens.flatMap { score, token in
                let document = document(of: Int(token))
                return IndexedFiring(
                    score: score, document: document, position: Int(token) - starts[document]
                ).stored
            })
    }
}

/// Summary of an expert's mean scores over labels: the label with the largest, by how much it is larger,
/// and how spread out the scores are.
struct LabelSpecialty {
    let label: Int
    let mean: Double
    /// The largest mean divided by the second largest; infinite if that is zero.
    let ratio: Double
    /// Entropy of the means, normalized to a distribution over labels, in bits.
    let entropy: Double

    /// Nil if every mean is zero.
    init?(means: [Double]) {
        let sum = means.reduce(0, +)
        guard let label = means.indices.max(by: { (means[$0], $1) < (means[$1], $0) }), sum > 0 else {
            return nil
        }
        self.label = label
        mean = means[label]
        let second = means.indices.filter { $0 != label }.map { means[$0] }.max() ?? 0
        ratio = second > 0 ? mean / second : .infinity
        entropy = means.reduce(0) { $1 > 0 ? $0 - $1 / sum * log2($1 / sum) : $0 }
    }
}

extension Data {
    /// The bytes of words in little-endian order.
    init(littleEndian words: [UInt32]) {
        self = words.map(\.littleEndian).withUnsafeBytes { Data($0) }
    }

    /// Words of four bytes in little-endian order; remaining bytes are dropped.
    var littleEndianWords: [UInt32] {
        withUnsafeBytes { bytes in
            (0..<(bytes.count / 4)).map {
                UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))
            }
        }
    }
}
