import MonetFoundation

/// Chooses the examples before each question as Python's harnesses do.
struct FewShotSampler {
    private let examples: [JSONValue]
    private let shots: Int
    private let excludesDocument: Bool
    private let sampler: TaskDefinition.Sampler
    private let task: TaskDefinition
    private var random: PythonRandom

    /// - `excludesDocument`: whether the document itself may be among the examples and must not be shown.
    /// - `label`: the answer by which a balanced choice takes turns.
    /// - Throws: `TaskError.tooFewExamples`.
    init(
        _ sampler: TaskDefinition.Sampler, examples: [JSONValue], shots: Int, seed: Int,
        excludesDocument: Bool,
        task: TaskDefinition, label: (JSONValue) throws -> String?
    ) throws {
        self.sampler = sampler
        self.shots = shots
        self.excludesDocument = excludesDocument
        self.task = task
        random = PythonRandom(seed: seed)
        guard sampler == .balanced, shots > 0 else {
            self.examples = examples
            return
        }
        // LightEval draws one pool with the seed 0 for all documents, and one example more than it shows.
        var pool = PythonRandom(seed: 0)
        var byLabel: [String: [Int]] = [:]
        for (index, example) in examples.enumerated() {
            byLabel[try label(example) ?? "", default: []].append(index)
        }
        let bySize = Dictionary(grouping: byLabel.keys.sorted(by: FewShotSampler.isBefore)) {
            byLabel[$0]?.count ?? 0
        }
        var labels: [String] = []
        for size in bySize.keys.sorted(by: >) {
            var equal = bySize[size] ?? []
            pool.shuffle(&equal)
            labels += equal
        }
        var chosen: [Int] = []
        let wanted = min(examples.count, shots + 1)
        var turn = 0
        while chosen.count < wanted {
            let label = labels[turn % labels.count]
            turn += 1
            guard let left = byLabel[label], !left.isEmpty else { continue }
            chosen.append(byLabel[label]?.remove(at: pool.below(left.count)) ?? 0)
        }
        self.examples = chosen.map { examples[$0] }
    }

    /// Python's order of texts, by code points.
    private static func isBefore(_ a: String, _ b: String) -> Bool {
        a.unicodeScalars.lexicographicallyPrecedes(b.unicodeScalars)
    }

    /// The examples for the next document.
    ///
    /// - Throws: `TaskError.tooFewExamples`.
    mutating func examples(for document: JSONValue) throws -> [JSONValue] {
        guard shots > 0 else { return [] }
        switch sampler {
        case .first:
            let pool = excludesDocument ? examples.filter { $0 != document } : examples
            try require(shots, of: pool.count)
            return Array(pool.prefix(shots))
        case .balanced:
            let pool = examples.filter { $0 != document }
            return Array(pool.prefix(shots))
        case .random:
            let wanted = excludesDocument ? shots + 1 : shots
            try require(wanted, of: examples.count)
            let drawn = random.sample(wanted, of: examples.count).map { examples[$0] }
            guard excludesDocument else { return drawn }
            let others = Array(drawn.filter { $0 != document }.prefix(shots))
            guard others.count < shots else { return others }
            // More than one copy of the document was drawn.
            let pool = examples.filter { $0 != document }
            try require(shots, of: pool.count)
            return random.sample(shots, of: pool.count).map { pool[$0] }
        }
    }

    private func require(_ wanted: Int, of found: Int) throws {
        guard wanted <= found else {
            throw TaskError.tooFewExamples(
                task: task.name, split: task.exampleSplit ?? "", found: found, expected: wanted)
        }
    }
}
