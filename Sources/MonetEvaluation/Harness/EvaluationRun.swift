import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetProcesses
import MonetText

/// Asks a model the questions of tasks.
///
///     let library = try TaskLibrary(.harness)
///     let selection = try library.selection(["arc_easy", "mmlu"])
///     let tasks = try selection.tasks.map { try EvaluationTask($0, data: DatasetFolder("data")) }
///     let run = EvaluationRun(model: model, tokenizer: tokenizer, tasks: tasks, groups: selection.groups)
///     print(try run.results().rows)
public struct EvaluationRun {
    /// The progress of a run.
    public struct Progress: Sendable {
        /// The task that runs.
        public let task: String
        /// Documents done, out of those of all tasks, and those done in this run.
        public let done: Int
        public let total: Int
        public let doneNow: Int
        /// Tokens run in this run, and those that are left, before what they share is known.
        public let tokens: Int
        public let tokensLeft: Int
    }

    let model: MonetLanguageModel
    let tokenizer: Tokenizer
    let backend: any Backend
    let mask: UnitMask?
    private let tasks: [EvaluationTask]
    private let groups: [TaskGroup]
    let tokens: ContinuationTokens
    let seed: UInt64
    let isolation: ProgramIsolation?
    let communicator: any Communicator

    /// Joins what is asked and who.
    ///
    /// - `mask`: units to remove, weaken or amplify, in addition to the model's own mask.
    /// - `backend`: a batch-invariant one makes every score independent of the others.
    /// - `contextLength`: the most tokens read at a time, the model's own by default.
    /// - `seed`: of sampled generations.
    /// - `communicator`: processes that share the questions, which all make this run together. The results of each are
    ///   those of one process; the first one stores answers.
    /// - `isolation`: what separates programs that the model writes from this machine; tasks with programs need it.
    public init(
        model: MonetLanguageModel, tokenizer: Tokenizer,
        backend: any Backend = CPUBackend(isBatchInvariant: true),
        mask: UnitMask? = nil, tasks: [EvaluationTask], groups: [TaskGroup] = [], contextLength: Int? = nil,
        seed: UInt64 = 0, isolation: ProgramIsolation? = nil,
        communicator: any Communicator = SingleProcess()
    ) {
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        self.mask = mask
        self.tasks = tasks
        self.groups = groups
        self.seed = seed
        self.isolation = isolation
        self.communicator = communicator
        tokens = ContinuationTokens(
            tokenizer: tokenizer,
            context: min(
                contextLength ?? model.configuration.maxPositionEmbeddings, model.configuration.contextLength)
        )
    }

    /// A task whose questions are known, but not all answers.
    struct Open {
        let task: EvaluationTask
        let items: [TaskItem]
        var answers: [Int: [TaskResponse]]
    }

    /// The results of all tasks.
    ///
    /// - `limit`: documents of each task, the first ones.
    /// - `recordsPath`: the file of answers, from which a stopped run can continue.
    /// - `progress`: called after each pass; false stops.
    /// - Throws: `CancellationError` if stopped, `TaskError`, `EvaluationError`, `ModelError`, `FileError`.
    public func results(
        limit: Int? = nil, recordsPath: String? = nil, overwrite: Bool = false,
        progress: (Progress) -> Bool = { _ in true }
    ) throws -> EvaluationResults {
        var open: [Open] = []
        for task in tasks {
            open.append(Open(task: task, items: try task.items(limit: limit), answers: [:]))
        }
        let records = try EvaluationRecords(
            path: communicator.isFirst ? recordsPath : nil, run: identity, overwrite: overwrite)
        for index in open.indices {
            for item in open[index].items {
                if let known = try records.responses(open[index].task.definition.name, item) {
                    open[index].answers[item.index] = known
                }
            }
            if communicator.isShared {
                let known = open[index].items.filter { open[index].answers[$0.index] != nil }
                _ = try exchange(known, &open[index])
            }
        }
        var counter = Counter(
            total: open.reduce(0) { $0 + $1.items.count }, done: open.reduce(0) { $0 + $1.answers.count })
        do {
            for index in open.indices { try answer(&open[index], records, &counter, progress) }
        } catch {
            try records.finish()
            throw error
        }
        try records.finish()
        return try EvaluationResults(
            try open.map { open in
                try TaskResult(
                    open.task,
                    try open.items.map { item in
                        try open.task.definition.scored(
                            item, open.answers[item.index] ?? [], hasManyTargets: open.task.hasManyTargets,
                            name: open.task.name(of: item.index))
                    })
            }, groups: groups)
    }

    struct Counter {
        let total: Int
        var done: Int
        var doneNow = 0
        var tokens = 0
        var tokensLeft = 0
    }

    /// What distinguishes the answers of runs.
    private var identity: JSONValue {
        [
            "model": .string(model.fingerprint),
            "mask": .string(String(StableHash.of(mask?.description ?? ""), radix: 16)),
            "own_mask": .string(String(StableHash.of(model.ownMask?.description ?? ""), radix: 16)),
            "context": .integer(tokens.context), "seed": .string("\(seed)"),
            "backend": .string(backend.forManyRows.arithmeticName),
            // What is generated depends on these, which the prompts do not show.
            "generation": .array(
                tasks.map(\.definition).filter { $0.outputType == .generation }.map { task in
                    let plan = task.generation
                    let stops = JSONValue.array(plan.stops.map { .string($0) }).serialized()
                    return .string(
                        "\(task.name) \(task.repeats) \(plan.maxNewTokens) \(plan.isSampled) \(plan.temperature) "
                            + "\(plan.topP ?? 1) \(plan.topK ?? 0) \(stops)")
                }),
        ]
    }

    // MARK: Answers

    private func answer(
        _ open: inout Open, _ records: EvaluationRecords, _ counter: inout Counter,
        _ progress: (Progress) -> Bool
    ) throws {
        let missing = open.items.filter { open.answers[$0.index] == nil }
        guard !missing.isEmpty else { return }
        let isGenerated = open.task.definition.outputType == .generation
        // Few documents at a time: their tokens and those of the trees stay in memory, and other processes' answers are
        // stored after each part.
        let size =
            isGenerated
            ? communicator.isShared ? 64 * communicator.count : missing.count : Self.documentsAtATime
        for start in stride(from: 0, to: missing.count, by: size) {
            let items = Array(missing[start..<min(missing.count, start + size)])
            try share(items, &open, records, &counter) { items, open, counter in
                if isGenerated {
                    try generate(items, &open, records, &counter, progress)
                } else {
                    try score(items, &open, records, &counter, progress)
                }
            }
        }
    }

    private static let documentsAtATime = 2048

    private func score(
        _ items: [TaskItem], _ open: inout Open, _ records: EvaluationRecords, _ counter: inout Counter,
        _ progress: (Progress) -> Bool
    ) throws {
        var queries: [ContinuationScorer.Query] = []
        // The item and the request that a query belongs to.
        var owners: [(item: Int, request: Int)] = []
        for (place, item) in items.enumerated() {
            for (number, request) in item.requests.enumerated() {
                let own: [ContinuationScorer.Query]
                switch request {
                case .logLikelihood(let context, let continuation):
                    own = [try tokens.query(context: context, continuation: continuation)]
                case .rolling(let text): own = try tokens.windows(of: text)
                case .generation: own = []
                }
                queries += own
                owners += own.map { _ in (place, number) }
            }
        }
        var missing = items.map { _ in 0 }
        for owner in owners { missing[owner.item] += 1 }
        var scores = queries.map { _ in ContinuationScorer.Score() }
        var byItem: [[Int]] = items.map { _ in [] }
        for (query, owner) in owners.enumerated() { byItem[owner.item].append(query) }
        let name = open.task.definition.name
        var isStopped = false
        func finish(_ place: Int) throws {
            let item = items[place]
            let answers = item.requests.indices.map { number -> TaskResponse in
                let own = byItem[place].filter { owners[$0].request == number }.map { scores[$0] }
                let sum = own.reduce(0) { $0 + $1.logLikelihood }
                if case .rolling = item.requests[number] { return .rolling(sum) }
                return .logLikelihood(sum, isGreedy: own.allSatisfy(\.isGreedy))
            }
            open.answers[item.index] = answers
            try records.append(name, item, answers)
            counter.done += 1
            counter.doneNow += 1
        }
        // A text without tokens has no windows.
        for place in items.indices where missing[place] == 0 { try finish(place) }
        counter.tokensLeft = queries.reduce(0) { $0 + $1.tokens.count }
        let scorer = ContinuationScorer(model: model, backend: backend, mask: mask)
        let isComplete = try scorer.score(
            queries,
            progress: { count in
                counter.tokens += count
                isStopped = !progress(
                    Progress(
                        task: name, done: counter.done, total: counter.total, doneNow: counter.doneNow,
                        tokens: counter.tokens, tokensLeft: counter.tokensLeft))
            },
            report: { query, score in
                scores[query] = score
                let place = owners[query].item
                missing[place] -= 1
                if missing[place] == 0 {
                    try finish(place)
                    try records.flush()
                }
                return !isStopped
            })
        try records.flush()
        if !isComplete || isStopped && counter.done < counter.total { throw CancellationError() }
    }
}
