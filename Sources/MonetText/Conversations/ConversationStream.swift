import MonetFoundation

/// Conversations in batches, packed to rows of about equal length.
///
/// A row takes conversations one after another as long as they fit. They stay sequences of their own in the batch, so
/// that none attends to another and every one begins at position 0. Rows are made once; each epoch has another order.
public struct ConversationStream: BatchSource {
    /// A file of conversations and how much of it is used: a share of its conversations, or a number of rounds.
    public struct Part: Sendable, Equatable {
        public var path: String
        public var weight: Double

        /// A file, all of it by default.
        public init(path: String, weight: Double = 1) {
            self.path = path
            self.weight = weight
        }
    }

    /// A conversation that fits into a row: inputs, and the next token of each that the assistant says, else −1.
    private struct Sequence: Sendable {
        let inputs: [Int32]
        let targets: [Int32]
    }

    private let rows: [[Sequence]]
    private let validation: [[Sequence]]
    private let batchSize: Int
    private let order: EpochOrder
    /// How much of each file is used.
    public let files: [UsedFile]
    public let fingerprint: String
    /// What was left out because it cannot be learned.
    public let unusable: UnusableEntries
    /// Conversations left out because nothing that the assistant says fits into a row.
    public let skipped: Int
    /// Conversations cut to the length of a row.
    public let truncated: Int

    /// Reads and encodes files of conversations.
    ///
    /// - `length`: the most tokens of a row.
    /// - `skipsUnusable`: whether what cannot be learned is left out, instead of being an error.
    /// - `validationShare`: how many of the conversations are held out.
    /// - Throws: `FileError`, `TextError`.
    public init(
        _ parts: [Part], encoder: ConversationEncoder, length: Int, batchSize: Int, validationShare: Double,
        seed: UInt64,
        skipsUnusable: Bool = false
    ) throws {
        self.batchSize = batchSize
        var (skipped, truncated) = (0, 0)
        var unusable = UnusableEntries(areSkipped: skipsUnusable)
        let split = try TrainingSplit(
            parts, validationShare: validationShare, seed: seed, content: "conversations"
        ) { path -> [Sequence] in
            try Conversation.entries(path, of: "conversations").compactMap { entry in
                try unusable.reading {
                    let conversation = try Conversation(json: entry.json, path: entry.path, line: entry.line)
                    let encoded: ConversationEncoder.Encoded
                    do { encoded = try encoder(conversation) } catch let error as TextError {
                        throw TextError.malformedSource(
                            path: entry.path, line: entry.line, reason: "\(error)")
                    }
                    let (inputs, targets) = encoded.training(length: length)
                    guard targets.contains(where: { $0 >= 0 }) else {
                        skipped += 1
                        return nil
                    }
                    if inputs.count < encoded.ids.count - 1 { truncated += 1 }
                    return Sequence(inputs: inputs, targets: targets)
                }
            }
        }
        // Where nothing else is left, what is wrong with the first one says most.
        if split.training.isEmpty, !split.isAllHeldOut, skipped == 0, let first = unusable.first {
            throw first
        }
        guard !split.training.isEmpty else {
            throw TextError.malformedSource(
                path: parts.map(\.path).joined(separator: ", "), line: nil,
                reason: split.isAllHeldOut
                    ? "nothing is left to train on: \(validationShare) of the conversations are held out, and "
                        + "weights leave out the rest"
                    : "no conversation with tokens of the assistant within the first \(length)")
        }
        (self.skipped, self.truncated, files) = (skipped, truncated, split.files)
        self.unusable = unusable
        rows = Self.packed(split.training, length: length)
        validation = Self.packed(split.held, length: length)
        order = EpochOrder(count: rows.count, seed: seed)
        fingerprint = Checksum(of: (rows + validation).map { $0.map { ($0.inputs, $0.targets) } }).text
    }

    private static func packed(_ sequences: [Sequence], length: Int) -> [[Sequence]] {
        var rows: [[Sequence]] = []
        var room = 0
        for sequence in sequences {
            if sequence.inputs.count <= room {
                rows[rows.count - 1].append(sequence)
                room -= sequence.inputs.count
            } else {
                rows.append([sequence])
                room = length - sequence.inputs.count
            }
        }
        return rows
    }

    /// Rows of an epoch.
    public var rowCount: Int { rows.count }
    /// Conversations of an epoch.
    public var conversationCount: Int { rows.reduce(0) { $0 + $1.count } }
    /// Tokens of an epoch that count in the loss.
    public var targetCount: Int {
        rows.reduce(0) { $0 + $1.reduce(0) { $0 + $1.targets.count { $0 >= 0 } } }
    }

    public func batch(from first: Int) -> BatchStream.Batch {
        let chosen = order.indices(first..<(first + batchSize)).flatMap { rows[$0] }
        return .init(inputs: chosen.map(\.inputs), targets: chosen.flatMap(\.targets))
    }

    public func validationBatches(limit: Int) -> [BatchStream.Batch] {
        stride(from: 0, to: validation.count, by: batchSize).prefix(limit).map { start in
            let chosen = validation[start..<min(validation.count, start + batchSize)].flatMap { $0 }
            return .init(inputs: chosen.map(\.inputs), targets: chosen.flatMap(\.targets))
        }
    }
}
