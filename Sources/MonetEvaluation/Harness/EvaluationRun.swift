import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText

/// Asks a model the questions of tasks.
///
///     let library = try TaskLibrary(.harness)
///     let selection = try library.selection(["arc_easy", "mmlu"])
///     let tasks = try selection.tasks.map { try EvaluationTask($0, data: DatasetFolder("data")) }
///     let run = EvaluationRun(model: model, tokenizer: tokenizer, tasks: tasks, groups: selection.groups)
///     print(try run.results().table)
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

    private let model: MonetLanguageModel
    private let tokenizer: Tokenizer
    private let backend: any Backend
    private let mask: UnitMask?
    private let tasks: [EvaluationTask]
    private let groups: [TaskGroup]
    private let tokens: ContinuationTokens
    private let seed: UInt64

    /// Joins what is asked and who.
    ///
    /// - `mask`: units to remove, weaken or amplify, in addition to the model's own mask.
    /// - `backend`: a batch-invariant one makes every score independent of the others.
    /// - `contextLength`: the most tokens read at a time, the model's own by default.
    /// - `seed`: of sampled generations.
    public init(
        model: MonetLanguageModel, tokenizer: Tokenizer,
        backend: any Backend = CPUBackend(isBatchInvariant: true),
        mask: UnitMask? = nil, tasks: [EvaluationTask], groups: [TaskGroup] = [], contextLength: Int? = nil,
        seed: UInt64 = 0
    ) {
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        self.mask = mask
        self.tasks = tasks
        self.groups = groups
        self.seed = seed
        tokens = ContinuationTokens(
            tokenizer: tokenizer,
            context: min(
                contextLength ?? model.configuration.maxPositionEmbeddings, model.configuration.contextLength)
        )
    }

    /// A task whose questions are known, but not all answers.
    private struct Open {
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
        let records = try EvaluationRecords(path: recordsPath, run: identity, overwrite: overwrite)
        for index in open.indices {
            for item in open[index].items {
                if let known = try records.responses(open[index].task.definition.name, item) {
                    open[index].answers[item.index] = known
                }
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

    private struct Counter {
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
            "context": .integer(tokens.context), "seed": .string("\(seed)"), "backend": .string(backend.name),
        ]
    }

    // MARK: Answers

    private func answer(
        _ open: inout Open, _ records: EvaluationRecords, _ counter: inout Counter,
        _ progress: (Progress) -> Bool
    ) throws {
        let missing = open.items.filter { open.answers[$0.index] == nil }
        guard !missing.isEmpty else { return }
        if open.task.definition.outputType == .generation {
            return try generate(missing, &open, records, &counter, progress)
        }
        // Few documents at a time: their tokens and those of the trees stay in memory.
        for start in stride(from: 0, to: missing.count, by: Self.documentsAtATime) {
            let items = Array(missing[start..<min(missing.count, start + Self.documentsAtATime)])
            try score(items, &open, records, &counter, progress)
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

    // MARK: Generation

    private func generate(
        _ items: [TaskItem], _ open: inout Open, _ records: EvaluationRecords, _ counter: inout Counter,
        _ progress: (Progress) -> Bool
    ) throws {
        let definition = open.task.definition
        let plan = definition.generation
        var limits = BatchEngine.Limits()
        limits.sequences = 16
        let engine = TextEngine(
            try BatchEngine(model: model, backend: backend, limits: limits, contextLength: tokens.context),
            tokenizer: tokenizer)
        var settings = GenerationSettings()
        settings.maxNewTokens = plan.maxNewTokens
        settings.sampling.temperature = plan.isSampled ? (plan.temperature == 0 ? 1 : plan.temperature) : 0
        // What transformers assumes where nothing is stated.
        settings.sampling.topP = plan.topP ?? 1
        settings.sampling.topK = plan.topK ?? 50
        var stops = plan.stops.filter { !$0.isEmpty }
        if let end = tokenizer.endID, let text = try? tokenizer.textWithSpecialTokens([end]), !text.isEmpty,
            !stops.contains(text)
        {
            stops.append(text)
        }
        var owners: [Int: (item: TaskItem, sample: Int)] = [:]
        var texts: [Int: [String?]] = [:]
        var waiting = items[...]
        while !waiting.isEmpty || !engine.isIdle {
            // Requests are submitted as slots become free, so that few prompts are in memory.
            while engine.runningCount + engine.waitingCount < 2 * limits.sequences,
                let item = waiting.popFirst()
            {
                let prompt = try tokens.prompt(item.requests[0].context, newTokens: plan.maxNewTokens)
                texts[item.index] = Array(repeating: nil, count: definition.repeats)
                for sample in 0..<definition.repeats {
                    var own = settings
                    own.sampling.seed = StableHash.of("\(seed) \(definition.name) \(item.index) \(sample)")
                    let request = GenerationRequest(prompt, settings: own, mask: mask)
                    owners[try engine.submit(request, stopStrings: stops)] = (item, sample)
                }
            }
            for event in engine.step() {
                switch event.kind {
                case .failed(let error): throw error
                case .step: counter.tokens += 1
                case .finished(let result):
                    guard let (item, sample) = owners.removeValue(forKey: event.request) else { continue }
                    texts[item.index]?[sample] = try text(of: result, stops: stops)
                    guard let own = texts[item.index], own.allSatisfy({ $0 != nil }) else { continue }
                    texts[item.index] = nil
                    let answers = [TaskResponse.texts(own.compactMap { $0 })]
                    open.answers[item.index] = answers
                    try records.append(definition.name, item, answers)
                    try records.flush()
                    counter.done += 1
                    counter.doneNow += 1
                case .scored, .observed: break
                }
            }
            let state = Progress(
                task: definition.name, done: counter.done, total: counter.total, doneNow: counter.doneNow,
                tokens: counter.tokens, tokensLeft: 0)
            guard progress(state) || counter.done == counter.total else { throw CancellationError() }
        }
    }

    /// The text up to the first of each stop string, decoded from its own beginning as the harness does.
    private func text(of result: GenerationResult, stops: [String]) throws -> String {
        var ids = result.ids
        if let last = ids.last, model.configuration.stopTokenIDs.contains(Int(last)) { ids.removeLast() }
        var text = try tokenizer.decode(ids)
        for stop in stops { text = PythonText.split(text, by: stop)[0] }
        return text
    }
}
