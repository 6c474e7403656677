import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses

/// Activations written to a folder: shards of documents, and a manifest that says what they are.
///
/// A shard holds `tokens` (int32), `documents` (int64, their numbers), `offsets` (int64, the place of each document's first
/// token in `tokens`, and the end), `scores.token`, `scores.group`, `scores.unit` (int32) and `scores.score`
/// (float32), and a tensor for each hook point, `[tokens, …]`.
public struct ActivationExport {
    /// How shards are stored.
    public enum Format: String, Sendable, CaseIterable {
        case safetensors
        /// NumPy's archive of arrays.
        case npz
    }

    /// How far an export has come.
    public struct Progress: Sendable {
        /// Tokens in shards or waiting for one, of all.
        public let tokens: Int
        public let totalTokens: Int
        /// Tokens of this run.
        public let newTokens: Int
        /// Seconds of this run.
        public let seconds: Double
    }

    private let reader: ActivationReader
    private let format: Format
    private let dtype: DType
    private let shardBytes: Int
    /// What identifies the export, so that another one is not continued.
    private let settings: [JSONValue.Member]

    /// - `dtype`: of the values at hook points: float32, float16 or bfloat16.
    /// - `shardBytes`: the size from which a shard is written. Documents are not divided, so that memory is about twice as much
    ///   and what the longest document needs.
    /// - `tokenizer`: the tokenizer's file, for its checksum.
    public init(
        _ reader: ActivationReader, format: Format = .safetensors, dtype: DType = .float32,
        shardBytes: Int = 128 << 20, modelPath: String, tokenizer: String? = nil
    ) throws {
        guard dtype.isFloatingPoint else {
            throw InsightError.invalidSetting(
                name: "the type of values", found: dtype.rawValue, expected: "float32, float16 or bfloat16")
        }
        // NumPy has no bfloat16.
        let dtype = format == .npz && dtype == .bfloat16 ? .float32 : dtype
        (self.reader, self.format, self.dtype, self.shardBytes) = (reader, format, dtype, shardBytes)
        let units: JSONValue =
            switch reader.selection.units {
            case .none: "none"
            case .all: "all"
            case .these(let units): .array(units.map { .string($0.description) })
            }
        let layout = reader.model.units
        let mask = [reader.model.ownMask, reader.mask].compactMap { $0?.description }.joined(separator: "|")
        settings = [
            .init("format", "monet-activations"), .init("version", 1),
            .init("shard_format", .string(format.rawValue)),
            .init("model", .string(reader.model.fingerprint)),
            .init("weights", .string(Self.checksum(of: reader.model))),
            .init("model_path", .string(modelPath)),
            .init("tokenizer", try tokenizer.map { .string(try Self.checksum($0)) } ?? .null),
            .init("data", .string(reader.documents.fingerprint)),
            .init("data_path", .string(reader.documents.origin)),
            .init("mask", mask.isEmpty ? .null : .string(String(StableHash.of(mask), radix: 16))),
            .init(
                "steering",
                reader.steering.map { .string(String(StableHash.of("\($0)"), radix: 16)) } ?? .null),
            .init("window", .integer(reader.window)), .init("dtype", .string(dtype.torchName)),
            .init("units", units), .init("unit_kind", .string(layout.kind.rawValue)),
            .init("units_per_group", .integer(layout.unitsPerGroup)),
            .init("experts_per_side", layout.perSide.map { .integer($0) } ?? .null),
            .init(
                "layers_of_group",
                .array(layout.layersOfGroup.map { .array($0.map { .integer($0) }) })),
            .init("hooks", .array(reader.selection.hooks.map { .string($0.description) })),
        ]
    }

    /// Of all weights as they are stored: quantized or edited in place, a model keeps its fingerprint.
    private static func checksum(of model: MonetLanguageModel) -> String {
        var checksum = Checksum()
        for parameter in model.parameters.all {
            var name = "\(parameter.name) \(parameter.tensor.dtype.rawValue)"
            name.withUTF8 { checksum.update(UnsafeRawBufferPointer($0)) }
            parameter.tensor.withUnsafeBytes { checksum.update($0) }
        }
        return checksum.text
    }

    private static func checksum(_ path: String) throws -> String {
        try Checksum(contentsOfFile: path).text
    }

    /// A shard of the manifest.
    private struct Shard {
        let file: String
        let firstDocument: Int
        /// The document after the last.
        let endDocument: Int
        let tokens: Int
        let entries: Int

        var json: JSONValue {
            [
                "file": .string(file), "first_document": .integer(firstDocument),
                "end_document": .integer(endDocument), "tokens": .integer(tokens),
                "scores": .integer(entries),
            ]
        }

        init(file: String, firstDocument: Int, endDocument: Int, tokens: Int, entries: Int) {
            (self.file, self.firstDocument, self.endDocument) = (file, firstDocument, endDocument)
            (self.tokens, self.entries) = (tokens, entries)
        }

        init?(_ json: JSONValue) {
            guard let file = json["file"]?.stringValue, let first = json["first_document"]?.intValue,
                let end = json["end_document"]?.intValue, let tokens = json["tokens"]?.intValue,
                let entries = json["scores"]?.intValue, first >= 0, end >= first, tokens >= 0, entries >= 0
            else { return nil }
            self.init(file: file, firstDocument: first, endDocument: end, tokens: tokens, entries: entries)
        }
    }

    /// Writes the folder, or goes on with one that was stopped.
    ///
    /// - `communicator`: processes that run documents in turn, which all do this together; the first one writes, and the
    ///   folder is the same as that of one process.
    /// - `replacing`: discards what is there.
    /// - `progress`: called at the first process after every document; false stops, with what is done kept.
    /// - `isCancelled`: asked at every process after its documents; true stops all of them, with what is done kept.
    /// - Returns: whether the export is complete.
    /// - Throws: `FileError.alreadyExists` for a complete export, `InsightError.foreignState` for one with other settings,
    ///   `ModelError`, `FileError`.
    public func write(
        to folder: String, replacing: Bool = false, communicator: any Communicator = SingleProcess(),
        progress: (Progress) -> Bool = { _ in true }, isCancelled: () -> Bool = { false }
    ) throws -> Bool {
        guard communicator.isFirst else {
            // Where to begin is what the first process found.
            let first = try communicator.gather([]).first ?? []
            guard first.count == 1, let document = Int(exactly: first[0]) else {
                throw ProcessError.unexpectedAnswer(rank: 0, expected: "a document", found: "\(first)")
            }
            return try run(from: document, communicator, isCancelled) { _ in true }
        }
        let manifest = folder + "/manifest.json"
        guard !folder.isEmpty else {
            throw InsightError.invalidSetting(name: "the folder", found: "''", expected: "a name")
        }
        try AtomicFile.createFolder(folder)
        let lock = try FileLock.acquire(folder + "/.lock", for: folder)
        defer { withExtendedLifetime(lock) {} }
        var shards: [Shard] = []
        if FileManager.default.fileExists(atPath: manifest) {
            let known = try earlier(manifest, replacing: replacing)
            if replacing {
                for shard in known { unlink(folder + "/" + shard.file.lastPathName) }
            } else {
                shards = known
            }
        }
        let total = (0..<reader.documents.count).reduce(0) { $0 + reader.documents.tokenCount($1) }
        // Writing once now shows whether it is possible, before hours are spent.
        try write(shards, isComplete: false, to: manifest)
        let began = ContinuousClock.now
        let before = shards.reduce(0) { $0 + $1.tokens }
        var done = before
        let first = shards.last?.endDocument ?? 0
        _ = try communicator.gather([Double(first)])
        var pending = PendingShard()
        let isComplete = try run(from: first, communicator, isCancelled) { document in
            pending.append(document)
            done += document.tokens.count
            let goesOn = progress(
                Progress(
                    tokens: done, totalTokens: total, newTokens: done - before,
                    seconds: (ContinuousClock.now - began).seconds))
            if pending.bytes >= shardBytes {
                try flush(&pending, &shards, folder)
                try write(shards, isComplete: false, to: manifest)
            }
            return goesOn
        }
        try flush(&pending, &shards, folder)
        try write(shards, isComplete: isComplete, to: manifest)
        return isComplete
    }

    /// Runs documents from one on; `take` gets each at the first process, and returns false to stop.
    private func run(
        from first: Int, _ communicator: any Communicator, _ isCancelled: () -> Bool,
        take: (DocumentActivations) throws -> Bool
    ) throws -> Bool {
        var iterator = reader.documents(from: first)
        return try communicator.inTurns(
            next: { iterator.nextBatch() }, compute: { try reader.run($0) }, encode: { reader.encoded($0) },
            decode: { try reader.decoded($0, $1, rank: $2) }, isCancelled: isCancelled
        ) { _, documents in
            for document in documents where try !take(document) { return false }
            return true
        }
    }

    /// The shards of an earlier run with the same settings.
    private func earlier(_ path: String, replacing: Bool) throws -> [Shard] {
        let json: JSONValue
        do {
            json = try JSONValue(contentsOfFile: path)
        } catch is FileError where replacing {
            return []
        }
        guard json["format"] == "monet-activations" else {
            throw InsightError.foreignState(
                path: path, key: "format", expected: "monet-activations",
                found: json["format"]?.serialized() ?? "none")
        }
        let shards = (json["shards"]?.arrayValue ?? []).compactMap(Shard.init)
        if replacing { return shards }
        for member in settings where !["model_path", "data_path"].contains(member.key) {
            let found = json[member.key] ?? .null
            guard found == member.value else {
                throw InsightError.foreignState(
                    path: path, key: member.key, expected: member.value.serialized(),
                    found: found.serialized())
            }
        }
        if json["is_complete"]?.boolValue ?? false { throw FileError.alreadyExists(path: path) }
        // A shard whose file is gone or that does not follow the one before is made again, with all after it.
        var kept: [Shard] = []
        for shard in shards {
            let file = (path as NSString).deletingLastPathComponent + "/" + shard.file.lastPathName
            guard shard.firstDocument == kept.last?.endDocument ?? 0,
                FileManager.default.fileExists(atPath: file)
            else { break }
            kept.append(shard)
        }
        return kept
    }

    private func write(_ shards: [Shard], isComplete: Bool, to path: String) throws {
        let members =
            settings + [
                .init("documents", .integer(reader.documents.count)),
                .init("tokens", .integer(shards.reduce(0) { $0 + $1.tokens })),
                .init("scores", .integer(shards.reduce(0) { $0 + $1.entries })),
                .init("is_complete", .bool(isComplete)), .init("shards", .array(shards.map(\.json))),
            ]
        try AtomicFile.write(JSONValue.object(members).serialized() + "\n", to: path)
    }

    private func flush(_ pending: inout PendingShard, _ shards: inout [Shard], _ folder: String) throws {
        guard let last = pending.documents.last else { return }
        let file = String(format: "activations-%05d.%@", shards.count, format.rawValue)
        let tensors = pending.tensors(reader.selection, dtype: dtype)
        switch format {
        case .safetensors:
            try SafetensorsWriter.write(
                tensors, metadata: ["format": "monet-activations", "model": reader.model.fingerprint],
                to: folder + "/" + file)
        case .npz: try NumpyArchive.write(tensors, to: folder + "/" + file)
        }
        shards.append(
            Shard(
                file: file, firstDocument: shards.last?.endDocument ?? 0, endDocument: last + 1,
                tokens: pending.tokens.count, entries: pending.scores.count))
        pending = PendingShard()
    }
}

/// Documents that wait for a shard.
private struct PendingShard {
    private(set) var documents: [Int] = []
    private(set) var tokens: [Int32] = []
    private(set) var scores = ScoreList()
    private var offsets: [Int] = [0]
    private var values: [HookPoint: (values: [Float], shape: [Int])] = [:]

    /// What the arrays take.
    var bytes: Int {
        16 * scores.count + 4 * tokens.count + values.values.reduce(0) { $0 + 4 * $1.values.count }
    }

    mutating func append(_ document: DocumentActivations) {
        documents.append(document.document)
        scores.append(document.scores, after: tokens.count)
        tokens += document.tokens
        offsets.append(tokens.count)
        for (point, own) in document.values {
            values[point, default: ([], own.shape)].values += own.values
        }
    }

    func tensors(_ selection: ActivationSelection, dtype: DType) -> [(name: String, tensor: Tensor)] {
        var result: [(name: String, tensor: Tensor)] = [
            ("tokens", Tensor(tokens, shape: [tokens.count])), ("documents", Tensor(int64: documents)),
            ("offsets", Tensor(int64: offsets)),
        ]
        if selection.units != .none {
            result += [
                ("scores.token", Tensor(scores.tokens, shape: [scores.count])),
                ("scores.group", Tensor(scores.groups, shape: [scores.count])),
                ("scores.unit", Tensor(scores.units, shape: [scores.count])),
                ("scores.score", Tensor(scores.scores, shape: [scores.count])),
            ]
        }
        for point in selection.hooks {
            guard let own = values[point] else { continue }
            let tensor = Tensor(own.values, shape: [tokens.count] + own.shape)
            result.append((point.description, tensor.converted(to: dtype)))
        }
        return result
    }
}
