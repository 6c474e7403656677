import MonetFoundation
import MonetText

/// Token sequences with labels and numbers, on which experts are measured.
///
///     let documents = try LabelledDocuments(corpus: Corpus(folder: "corpora/demo"), split: .train)
public struct LabelledDocuments: Sendable {
    /// A kind of label, such as the domain or the programming language, and its values.
    public struct LabelSet: Sendable, Equatable {
        public let name: String
        public let labels: [String]

        /// Joins the kind's name and its values.
        public init(name: String, labels: [String]) { (self.name, self.labels) = (name, labels) }
    }

    /// The kinds of labels; every document has at most one label of each.
    public let labelSets: [LabelSet]
    /// Where the documents come from, for messages.
    public let origin: String
    private let entries: [Entry]
    private let corpus: (corpus: Corpus, split: CorpusSplit)?

    private struct Entry: Sendable {
        /// Range of tokens in the corpus's split, or empty.
        var range = 0..<0
        /// The tokens themselves, if they are not a corpus folder's.
        var tokens: [Int32] = []
        /// Index of the label in each set, negative if it has none.
        var labels: [Int]
        var number: Double?
        var tokenNumbers: [Double]?

        var count: Int { tokens.isEmpty ? range.count : tokens.count }

        func cut(to count: Int) -> Entry {
            var result = self
            if tokens.isEmpty {
                result.range = range.prefix(count)
            } else {
                result.tokens = Array(tokens.prefix(count))
            }
            return result
        }
    }

    /// The documents of a corpus folder, with its label sets.
    ///
    /// - `limit`: the maximum number of tokens, equally many per label of the first set; documents are taken in a
    ///   fixed random order.
    /// - `labels`: only documents with these labels, all of one set, are read, and that set comes first; nil reads
    ///   all.
    /// - Throws: `TextError`, `InsightError.unknownLabel`.
    public init(corpus: Corpus, split: CorpusSplit, limit: Int? = nil, labels: [String]? = nil) throws {
        var order = Array(corpus.labelSets.indices)
        var kept: [Int]?
        if let labels {
            let set = order.first { set in labels.allSatisfy(corpus.labelSets[set].labels.contains) }
            kept = try Self.chosen(labels, of: corpus.labelSets[set ?? 0].labels, origin: corpus.folder)
            if let set { order = [set] + order.filter { $0 != set } }
        }
        let names = order.enumerated().map { place, set in
            let all = corpus.labelSets[set].labels
            return (place == 0 ? kept?.map { all[$0] } : nil) ?? all
        }
        let places = kept.map { kept in
            Dictionary(kept.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
        }
        let entries = try corpus.documents(in: split).compactMap { document -> Entry? in
            var own = order.map { document.labels[$0] }
            if let places {
                guard let place = places[own[0]] else { return nil }
                own[0] = place
            }
            return Entry(range: document.tokens, labels: own)
        }
        labelSets = zip(order, names).map { LabelSet(name: corpus.labelSets[$0].name, labels: $1) }
        origin = corpus.folder
        self.corpus = (corpus, split)
        self.entries = Self.sampled(entries, limit: limit, labels: names[0].count)
    }

    /// Documents of text files, JSONL files and folders.
    ///
    /// - `labelKeys`: JSONL columns, each of which is a label set; `label` falls back to the file's name.
    /// - `numberKey`: a JSONL column with one number for the document, or a list with one number per token.
    /// - Throws: `FileError`, `TextError`, `InsightError.missingNumber`.
    public init(
        sources: [CorpusSource], tokenizer: Tokenizer, labelKeys: [String] = ["label"],
        numberKey: String? = nil, limit: Int? = nil
    ) throws {
        var names: [[String]] = labelKeys.map { _ in [] }
        var places: [[String: Int]] = labelKeys.map { _ in [:] }
        var entries: [Entry] = []
        for source in sources {
            try source.forEachDocument { document in
                let labels = labelKeys.indices.map { set -> Int in
                    let key = labelKeys[set]
                    let own = document.columns?[key]?.label
                    guard let label = own ?? (key == source.labelKey ? document.label : nil) else {
                        return -1
                    }
                    if let known = places[set][label] { return known }
                    places[set][label] = names[set].count
                    names[set].append(label)
                    return names[set].count - 1
                }
                var entry = Entry(labels: labels)
                entry.tokens =
                    try tokenizer.encode(document.text, addBegin: true) + (tokenizer.endID.map { [$0] } ?? [])
                if let numberKey {
                    let value = document.columns?[numberKey]
                    entry.number = value?.doubleValue
                    entry.tokenNumbers = value?.arrayValue?.compactMap(\.doubleValue)
                    if let list = entry.tokenNumbers, list.count != entry.tokens.count {
                        throw InsightError.malformedNumbers(
                            path: source.path, key: numberKey, document: entries.count + 1,
                            expected: entry.tokens.count, found: list.count)
                    }
                    guard entry.number != nil || entry.tokenNumbers != nil else {
                        throw InsightError.missingNumber(
                            path: source.path, key: numberKey, document: entries.count + 1)
                    }
                }
                entries.append(entry)
            }
        }
        labelSets = zip(labelKeys, names).map { LabelSet(name: $0, labels: $1) }
        origin = sources.map(\.path).joined(separator: ", ")
        corpus = nil
        self.entries = Self.sampled(entries, limit: limit, labels: names.first?.count ?? 0)
    }

    /// Texts without labels.
    public init(tokens: [[Int32]], origin: String) {
        labelSets = []
        self.origin = origin
        corpus = nil
        entries = tokens.map { Entry(tokens: $0, labels: []) }
    }

    /// Texts with labels.
    ///
    /// - `labels`: for each text the index of its label in each set, negative for none.
    /// - Throws: `InsightError.invalidSetting` for labels that are not in the sets.
    public init(tokens: [[Int32]], labels: [[Int]], labelSets: [LabelSet], origin: String) throws {
        guard labels.count == tokens.count,
            labels.allSatisfy({ own in
                own.count == labelSets.count
                    && zip(own, labelSets).allSatisfy { $0 < $1.labels.count }
            })
        else {
            throw InsightError.invalidSetting(
                name: "\(origin): the labels", found: "others than those of the sets",
                expected: "one of each set for each of \(tokens.count) texts")
        }
        (self.labelSets, self.origin, corpus) = (labelSets, origin, nil)
        entries = zip(tokens, labels).map { Entry(tokens: $0, labels: $1) }
    }

    /// The number of labels in all sets.
    public var labelCount: Int { labelSets.reduce(0) { $0 + $1.labels.count } }

    /// Labels for which statistics are kept: a column with a value of its own for every document is no label.
    private static let mostLabels = 4096

    /// Checks that there are two labels or more in the first set, and not so many that they are something else.
    ///
    /// - Throws: `InsightError.noLabels`, `InsightError.invalidSetting`.
    func requireLabels() throws -> LabelSet {
        guard let set = labelSets.first, set.labels.count > 1 else {
            throw InsightError.noLabels(origin: origin)
        }
        try requireFewLabels()
        return set
    }

    /// - Throws: `InsightError.invalidSetting` for more labels than statistics are kept for.
    func requireFewLabels() throws {
        guard labelCount <= Self.mostLabels else {
            throw InsightError.invalidSetting(
                name: "\(origin): the number of labels", found: labelCount.grouped,
                expected:
                    "at most \(Self.mostLabels.grouped); a column with a value for each document is no label"
            )
        }
    }

    /// The number of documents.
    public var count: Int { entries.count }

    /// The number of tokens in a document.
    public func tokenCount(_ document: Int) -> Int {
        corpus == nil ? entries[document].tokens.count : entries[document].range.count
    }

    /// The number of tokens in all documents.
    public var tokenCount: Int { entries.indices.reduce(0) { $0 + tokenCount($1) } }

    /// A document's token ids.
    public func tokens(_ document: Int) -> [Int32] {
        guard let corpus else { return entries[document].tokens }
        return corpus.corpus.tokens(in: corpus.split, entries[document].range)
    }

    /// Index of a document's label in each set, negative if it has none.
    public func labels(_ document: Int) -> [Int] { entries[document].labels }

    /// A document's labels, numbered across all sets; sets in which it has none are left out.
    package func labelNumbers(_ document: Int) -> [Int] {
        var first = 0
        var result: [Int] = []
        for (set, label) in entries[document].labels.enumerated() {
            if label >= 0 { result.append(first + label) }
            first += labelSets[set].labels.count
        }
        return result
    }

    /// The number that belongs to a document's token, if numbers were read.
    public func number(_ document: Int, token: Int) -> Double? {
        entries[document].tokenNumbers?[token] ?? entries[document].number
    }

    /// Identifies the set of documents.
    public var fingerprint: String {
        var hash: UInt64 = StableHash.of(
            labelSets.map { $0.name + $0.labels.joined(separator: "\u{1}") }.joined())
        for document in 0..<count {
            let tokens = tokens(document)
            for token in tokens { hash = (hash ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01b3 }
            for label in labels(document) { hash = (hash ^ UInt64(label + 1)) &* 0x100_0000_01b3 }
            hash ^= hash >> 29
        }
        return String(hash, radix: 16)
    }

    private static func chosen(_ labels: [String], of known: [String], origin: String) throws -> [Int] {
        try labels.map { label in
            guard let place = known.firstIndex(of: label) else {
                throw InsightError.unknownLabel(label: label, known: known, origin: origin)
            }
            return place
        }
    }

    /// Equally many tokens for every label of the first set, from documents in a fixed random order; the last
    /// document of a label is cut off.
    private static func sampled(_ entries: [Entry], limit: Int?, labels: Int) -> [Entry] {
        guard let limit, entries.reduce(0, { $0 + $1.count }) > limit else { return entries }
        var shares = Array(repeating: 0, count: labels + 1)
        for entry in entries { shares[(entry.labels.first ?? -1) + 1] += entry.count }
        // Tokens that a small label cannot provide are taken from the others.
        var left = Array(repeating: 0, count: shares.count)
        var (room, waiting) = (
            limit, shares.indices.filter { shares[$0] > 0 }.sorted { shares[$0] < shares[$1] }
        )
        while let smallest = waiting.first {
            left[smallest] = min(shares[smallest], room / waiting.count)
            room -= left[smallest]
            waiting.removeFirst()
        }
        let order = entries.indices.sorted { a, b in
            var (first, second) = (SplitMix64(seed: UInt64(a)), SplitMix64(seed: UInt64(b)))
            return (first.next(), a) < (second.next(), b)
        }
        var kept: [Int: Int] = [:]
        for index in order {
            let label = (entries[index].labels.first ?? -1) + 1
            let count = min(left[label], entries[index].count)
            if count > 0 { kept[index] = count }
            left[label] -= count
        }
        return kept.sorted { $0.key < $1.key }.map { entries[$0.key].cut(to: $0.value) }
    }
}
