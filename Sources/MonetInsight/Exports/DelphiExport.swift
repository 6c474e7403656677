import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// A cache of activations as Delphi reads it: for every group a folder with `config.json` and the latents in a few ranges,
/// `{first}_{last}.safetensors` with `locations` (sequence, position, latent − first), `activations` and `tokens`.
///
/// The model reads the documents of the index one after another in sequences of equal length, as Delphi's own cache does, and all
/// its experts' scores are kept: explanations and scores need the silent tokens as much as the firing ones.
public struct DelphiExport {
    /// What to write.
    public struct Settings: Sendable {
        /// The model's name.
        public var model: String
        /// Tokens of a sequence; a multiple of 32, the length of Delphi's examples.
        public var context = 256
        /// The most tokens that are read.
        public var tokens = 100_000
        /// Files of a group.
        public var splits = 5
        /// Only these groups; nil means all.
        public var groups: [Int]?

        /// 100,000 tokens in sequences of 256.
        public init(model: String) { self.model = model }
    }

    private let index: ExpertIndex
    private let model: MonetLanguageModel
    private let settings: Settings
    private let backend: any Backend

    /// Scores that Delphi itself drops.
    private static let least: Float = 1e-5

    /// - Throws: `InsightError.foreignIndex`, `InsightError.invalidSetting`.
    public init(
        _ index: ExpertIndex, model: MonetLanguageModel, settings: Settings,
        backend: any Backend = CPUBackend()
    ) throws {
        try index.require(model)
        let most = min(65536, model.configuration.contextLength)
        guard settings.context % 32 == 0, (32...max(32, most)).contains(settings.context) else {
            throw InsightError.invalidSetting(
                name: "the length of sequences", found: "\(settings.context)",
                expected: "a multiple of 32 up to \(most)")
        }
        guard (1...index.units.unitsPerGroup).contains(settings.splits) else {
            throw InsightError.invalidSetting(
                name: "the number of splits", found: "\(settings.splits)",
                expected: "1 to \(index.units.unitsPerGroup)")
        }
        var settings = settings
        settings.groups = try settings.groups.map(index.checkedGroups)
        (self.index, self.model, self.settings, self.backend) = (index, model, settings, backend)
    }

    /// One file's entries, in the order of tokens.
    private struct Split {
        let latents: ClosedRange<Int>
        var locations: [UInt32] = []
        var activations: [Float] = []
    }

    /// Reads the documents and writes the cache: a folder `latents`, with a folder for each group.
    ///
    /// - `progress`: called with the tokens read and their number; false stops.
    /// - Throws: `FileError`, `CancellationError` when stopped; nothing is then written.
    public func write(
        to path: String, progress: (_ tokens: Int, _ count: Int) -> Bool = { _, _ in true }
    ) throws {
        let length = settings.context
        let tokens = try index.storedTokens(limit: settings.tokens)
        let count = tokens.count / length
        guard count > 0 else {
            throw InsightError.invalidSetting(
                name: "\(index.path): the tokens of its documents", found: "\(tokens.count)",
                expected: "one sequence of \(length) or more")
        }
        let groups = settings.groups ?? Array(0..<index.units.groups)
        let total = index.units.unitsPerGroup
        var splits = Dictionary(
            uniqueKeysWithValues: groups.map { group in
                (
                    group,
                    (0..<settings.splits).map {
                        Split(
                            latents: ($0 * total / settings.splits)...(($0 + 1) * total / settings.splits - 1)
                        )
                    }
                )
            })
        let perBatch = max(1, 512 / length)
        for first in stride(from: 0, to: count, by: perBatch) {
            let sequences = (first..<min(count, first + perBatch)).map {
                Array(tokens[($0 * length)..<(($0 + 1) * length)])
            }
            var input = ForwardInput(sequences)
            input.keepsUnits = true
            for units in try model.forward(input, on: backend).groups {
                var reader = units.reader()
                for row in 0..<(sequences.count * length) {
                    reader.visit(row) { unit, score in
                        guard score > Self.least else { return }
                        // The range that holds the unit, whose ends are rounded down.
                        let split = ((unit + 1) * settings.splits - 1) / total
                        splits[units.group]?[split].locations += [
                            UInt32(first + row / length), UInt32(row % length), UInt32(unit),
                        ]
                        splits[units.group]?[split].activations.append(score)
                    }
                }
            }
            let bytes = splits.values.joined().reduce(0) { $0 + 16 * $1.activations.count }
            try MemoryLimits.require(2 * bytes, for: "the scores of \((first * length).grouped) tokens")
            guard progress((first + sequences.count) * length, count * length) else {
                throw CancellationError()
            }
        }
        try AtomicFile.writeFolder(path) { folder in
            for group in groups {
                let own = folder + "/latents/layers.\(index.units.layersOfGroup[group].lowerBound).moe"
                try AtomicFile.createFolder(own)
                try AtomicFile.write(
                    configuration(count * length).serialized(pretty: true), to: own + "/config.json")
                for split in splits[group] ?? [] {
                    try write(split, tokens: Array(tokens.prefix(count * length)), to: own)
                }
            }
        }
    }

    private func write(_ split: Split, tokens: [Int32], to folder: String) throws {
        let (first, last) = (split.latents.lowerBound, split.latents.upperBound)
        let locations = split.locations.enumerated().map { $0 % 3 == 2 ? $1 - UInt32(first) : $1 }
        let shape = [split.activations.count, 3]
        // Delphi stores numbers in 16 bits where all fit.
        let isShort = locations.allSatisfy { $0 < 1 << 16 }
        try SafetensorsWriter.write(
            [
                .init(
                    name: "tokens", tokens.map(Int64.init),
                    shape: [tokens.count / settings.context, settings.context]),
                isShort
                    ? .init(name: "locations", locations.map { UInt16($0) }, shape: shape)
                    : .init(name: "locations", locations, shape: shape),
                .init(
                    name: "activations",
                    Tensor(split.activations, shape: [split.activations.count]).converted(to: .float16)),
            ], to: folder + "/\(first)_\(last).safetensors")
    }

    private func configuration(_ tokens: Int) -> JSONValue {
        [
            "dataset_repo": .string(index.corpus), "dataset_split": "train", "dataset_name": "",
            "dataset_column": "text", "batch_size": .integer(max(1, 512 / settings.context)),
            "cache_ctx_len": .integer(settings.context), "n_tokens": .integer(tokens),
            "n_splits": .integer(settings.splits), "model_name": .string(settings.model),
        ]
    }
}

extension ExpertIndex {
    /// The tokens of the stored documents, one document after another, at most `limit`.
    func storedTokens(limit: Int) throws -> [Int32] {
        try read { database in
            var tokens: [Int32] = []
            for row in try rows(database, sql: "SELECT id FROM document ORDER BY id")
            where tokens.count < limit {
                tokens += try self.tokens(
                    database, document: row.integer("id", 0..<documents), from: 0, count: limit - tokens.count
                )
            }
            return tokens
        }
    }
}
