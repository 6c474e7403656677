import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText

/// Builds an expert index in one pass over labelled documents.
///
/// All statistics are kept in memory, `memoryBytes` in total, whatever the size of the corpus. Periodically,
/// and when the build is stopped, the state is saved to `PATH.partial`, from which the next build continues;
/// the index appears at PATH once it is complete.
public struct ExpertIndexBuilder {
    /// What to count and how to read.
    public struct Settings: Sendable, Equatable {
        /// Number of largest scores to keep for every expert.
        public var top = 20
        /// Tokens per window of a document; nil means the model's context, at most 512.
        public var window: Int?
        /// Tokens per batch.
        public var batchTokens = 512
        /// Seconds between saves of the state.
        public var saveSeconds = 120.0

        /// 20 top tokens per expert.
        public init() {}
    }

    /// The progress of a build.
    public struct Progress: Sendable {
        public let tokens: Int
        public let totalTokens: Int
        /// Tokens that this run has read, and its duration in seconds.
        public let newTokens: Int
        public let seconds: Double
        /// The current phase.
        public let phase: Phase

        /// Reading documents or writing the index.
        public enum Phase: Sendable { case reading, writing }
    }

    private let model: MonetLanguageModel
    private let tokenizer: Tokenizer?
    private let modelPath: String
    private let documents: LabelledDocuments
    private let settings: Settings
    private let backend: any Backend
    private let pool: WorkerPool
    private let window: Int
    private let starts: [Int]
    private let fingerprint: String
    private let documentsFingerprint: String

    /// - `modelPath`: stored in the index, for commands that run the model.
    /// - `tokenizer`: provides the tokens' texts.
    /// - `pool`: the threads that count, beside those of the backend.
    /// - Throws: `InsightError`, `TextError`.
    public init(
        model: MonetLanguageModel, modelPath: String, tokenizer: Tokenizer?, documents: LabelledDocuments,
        settings: Settings = Settings(), backend: any Backend = CPUBackend(), pool: WorkerPool = .shared
    ) throws {
        let context = model.configuration.contextLength
        window = settings.window ?? min(context, 512)
        guard (1...context).contains(window) else {
            throw InsightError.invalidSetting(
                name: "the window", found: "\(window)", expected: "1 to the model's context of \(context)")
        }
        guard (1...1000).contains(settings.top) else {
            throw InsightError.invalidSetting(
                name: "the number of top tokens", found: "\(settings.top)", expected: "1 to 1000")
        }
        guard model.units.unitsPerGroup <= IndexMetadata.mostUnitsPerGroup,
            model.units.count <= IndexMetadata.mostUnits
        else {
            throw InsightError.invalidSetting(
                name: "the number of \(model.units.kind.rawValue)", found: model.units.count.grouped,
                expected: "at most \(IndexMetadata.mostUnits.grouped), "
                    + "\(IndexMetadata.mostUnitsPerGroup.grouped) in a group")
        }
        try documents.requireFewLabels()
        var starts = [0]
        for document in 0..<documents.count {
            starts.append(starts[document] + documents.tokenCount(document))
        }
        let total = starts[documents.count]
        guard total > 0, total < Int(UInt32.max) else {
            throw InsightError.invalidSetting(
                name: "the number of tokens in \(documents.origin)", found: "\(total)",
                expected: "1 to \(UInt32.max - 1)")
        }
        self.model = model
        self.modelPath = modelPath
        self.tokenizer = tokenizer
        self.documents = documents
        self.settings = settings
        self.backend = backend
        self.pool = pool
        self.starts = starts
        fingerprint = model.fingerprint
        documentsFingerprint = documents.fingerprint
    }

    private var groups: Int { model.units.groups }
    private var experts: Int { model.units.unitsPerGroup }
    private var labels: Int { documents.labelCount }

    /// The memory that the statistics take, in bytes.
    public var memoryBytes: Int {
        MemoryLimits.product(
            groups, experts,
            GroupStatistics.bytesPerExpert(labels: labels, top: settings.top, keepsSamples: true))
    }

    /// Builds the index at `path`, continuing from an earlier run's state if there is one.
    ///
    /// - `communicator`: processes that run batches in turn, which all do this together; the first one counts and writes,
    ///   and the index is the same as that of one process.
    /// - `progress`: called at the first process after every batch; false stops, with the state saved.
    /// - `isCancelled`: asked at every process after its batches; true stops all of them, with the state saved.
    /// - Returns: whether the index is complete.
    /// - Throws: `InsightError`, `FileError`, `ModelError`, `ProcessError`.
    public func build(
        at path: String, replacing: Bool = false, communicator: any Communicator = SingleProcess(),
        progress: (Progress) -> Bool = { _ in true }, isCancelled: () -> Bool = { false }
    ) throws -> Bool {
        guard communicator.isFirst else {
            // Where to begin is what the first process found.
            let first = try communicator.gather([]).first ?? []
            guard first.count == 2, let document = Int(exactly: first[0]), let token = Int(exactly: first[1])
            else {
                throw ProcessError.unexpectedAnswer(rank: 0, expected: "a place", found: "\(first)")
            }
            return try read(
                from: DocumentReader.Position(document: document, token: token), into: [], nil, communicator,
                isCancelled
            ) { _ in true }
        }
        let partial = path + ".partial"
        if FileManager.default.fileExists(atPath: path), !replacing {
            throw FileError.alreadyExists(path: path)
        }
        // The file is made beside its place and renamed, which would replace a device.
        if FileManager.default.fileExists(atPath: path) { try MappedFile.requireRegularFile(path) }
        let lock = try FileLock.acquire(path + ".lock", for: path)
        defer { withExtendedLifetime(lock) {} }
        try MemoryLimits.require(
            memoryBytes,
            for:
                "\(path): the statistics of \(model.units.count.grouped) \(model.units.kind.rawValue) on \(labels) labels"
        )
        let statistics = (0..<groups).map { _ in
            GroupStatistics(experts: experts, labels: labels, top: settings.top, keepsSamples: true)
        }
        let state = IndexState(path: partial, settings: stateSettings)
        var next = DocumentReader.Position()
        if FileManager.default.fileExists(atPath: partial) {
            if replacing {
                unlink(partial)
            } else {
                next = try state.read(into: statistics, documents: documents)
            }
        }
        // Writing once now shows whether it is possible, before hours are spent.
        try state.write(statistics, next: next)
        _ = try communicator.gather([Double(next.document), Double(next.token)])
        let isComplete = try read(
            from: next, into: statistics, state, communicator, isCancelled, progress)
        guard isComplete else { return false }
        let total = starts[documents.count]
        _ = progress(Progress(tokens: total, totalTokens: total, newTokens: 0, seconds: 0, phase: .writing))
        let writer = ExpertIndexWriter(
            documents: documents, starts: starts, vocabularySize: model.configuration.vocabularySize,
            tokenizer: tokenizer)
        try writer.write(statistics, metadata: metadata, to: path)
        unlink(partial)
        return true
    }

    /// The settings that an unfinished build and its continuation must share.
    private var stateSettings: [(key: String, value: String)] {
        [
            ("model", fingerprint), ("corpus", documentsFingerprint), ("top", "\(settings.top)"),
            ("window", "\(window)"), ("batch tokens", "\(settings.batchTokens)"),
            ("mask", model.ownMask.map { String(StableHash.of($0.description), radix: 16) } ?? "none"),
        ]
    }

    private var metadata: [(key: String, value: String)] {
        let units = model.units
        return [
            ("model", fingerprint), ("model_path", modelPath), ("corpus", documents.origin),
            ("corpus_fingerprint", documentsFingerprint), ("groups", "\(groups)"),
            ("units", units.kind.rawValue), ("units_per_group", "\(units.unitsPerGroup)"),
            ("experts_per_side", "\(units.perSide ?? 0)"), ("routing_heads", "\(units.heads)"),
            ("layers_per_router", "\(units.layersOfGroup.first?.count ?? 1)"),
            ("layers", "\(model.configuration.layerCount)"),
            ("tokens", "\(starts[documents.count])"), ("documents", "\(documents.count)"),
            ("window", "\(window)"), ("top", "\(settings.top)"),
            ("vocabulary", "\(model.configuration.vocabularySize)"),
        ]
    }

    /// Counts documents from `first` on; false if it was stopped.
    private func read(
        from first: DocumentReader.Position, into statistics: [GroupStatistics], _ state: IndexState?,
        _ communicator: any Communicator, _ isCancelled: () -> Bool, _ progress: (Progress) -> Bool
    ) throws -> Bool {
        let firstToken = starts[first.document] + first.token
        let start = ContinuousClock.now
        var saved = start
        let reader = DocumentReader(
            model: model, backend: backend, window: window, batchTokens: settings.batchTokens)
        var plans = reader.plans(of: documents, from: first)
        var end = first
        let isComplete = try communicator.inTurns(
            next: { try plans.next() }, compute: { ($0.tokenCount, try reader.run($0).output.groups) },
            encode: { ListedActivations.encoded($0.1, rows: $0.0) },
            decode: { data, plan, rank in
                (
                    plan.tokenCount,
                    try ListedActivations.decoded(
                        data, rows: plan.tokenCount, rank: rank, layout: model.units)
                )
            }, isCancelled: isCancelled
        ) { plan, result in
            let units = result.1
            // Every group has its own statistics.
            pool.parallel(chunks: units.count) { place in
                count(plan, units[place], into: statistics[units[place].group])
            }
            let now = ContinuousClock.now
            let tokens = starts[plan.end.document] + plan.end.token
            end = plan.end
            if (now - saved).seconds > settings.saveSeconds {
                try state?.write(statistics, next: end)
                saved = now
            }
            return progress(
                Progress(
                    tokens: tokens, totalTokens: starts[documents.count], newTokens: tokens - firstToken,
                    seconds: (now - start).seconds, phase: .reading))
        }
        if !isComplete { try state?.write(statistics, next: end) }
        return isComplete
    }

    private func count(
        _ batch: DocumentReader.Plan, _ units: any UnitActivations, into statistics: GroupStatistics
    ) {
        var scores = units.reader()
        var row = 0
        for piece in batch.pieces {
            let labels = documents.labelNumbers(piece.document)
            let start = starts[piece.document] + piece.start
            for offset in piece.tokens.indices {
                scores.visit(row) { index, score in
                    statistics.add(score, expert: index, token: UInt32(start + offset), labels: labels)
                }
                row += 1
            }
        }
    }
}
