import MonetFoundation

/// Preference pairs in batches: of each pair, first the chosen conversation, then the rejected one.
///
/// Every conversation is a sequence of its own. What the two begin with counts in neither.
public struct PreferenceStream: BatchSource {
    private struct Side: Sendable {
        let inputs: [Int32]
        let targets: [Int32]
    }

    private let pairs: [[Side]]
    private let validation: [[Side]]
    private let batchSize: Int
    private let order: EpochOrder
    /// How much of each file is used.
    public let files: [UsedFile]
    public let fingerprint: String
    /// What was left out because it cannot be learned.
    public let unusable: UnusableEntries
    /// Pairs left out because nothing that the assistant says in one of them stands within the length.
    public let skipped: Int
    /// Pairs of which an answer was cut.
    public let truncated: Int

    /// Reads and encodes files of preference pairs.
    ///
    /// - `length`: the most tokens of a conversation.
    /// - `batchSize`: pairs of a batch.
    /// - `skipsUnusable`: whether what cannot be learned is left out, instead of being an error.
    /// - `validationShare`: how many of the pairs are held out.
    /// - Throws: `FileError`, `TextError`.
    public init(
        _ parts: [ConversationStream.Part], encoder: ConversationEncoder, length: Int, batchSize: Int,
        validationShare: Double, seed: UInt64,
        skipsUnusable: Bool = false
    ) throws {
        self.batchSize = batchSize
        var (skipped, truncated) = (0, 0)
        var unusable = UnusableEntries(areSkipped: skipsUnusable)
        let split = try TrainingSplit(
            parts, validationShare: validationShare, seed: seed, content: "pairs"
        ) { path -> [[Side]] in
            try Conversation.entries(path, of: "preference pairs").compactMap { entry in
                try unusable.reading {
                    let pair = try PreferencePair(json: entry.json, path: entry.path, line: entry.line)
                    var isCut = false
                    let sides = try [pair.chosen, pair.rejected].map { conversation -> Side in
                        let encoded: ConversationEncoder.Encoded
                        do {
                            encoded = try encoder(conversation, markingFrom: pair.commonCount)
                        } catch let error as TextError {
                            throw TextError.malformedSource(
                                path: entry.path, line: entry.line, reason: "\(error)")
                        }
                        let (inputs, targets) = encoded.training(length: length)
                        if inputs.count < encoded.ids.count - 1 { isCut = true }
                        return Side(inputs: inputs, targets: targets)
                    }
                    guard sides.allSatisfy({ $0.targets.contains { $0 >= 0 } }) else {
                        skipped += 1
                        return nil
                    }
                    if isCut { truncated += 1 }
                    return sides
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
                    ? "nothing is left to train on: \(validationShare) of the pairs are held out, and weights "
                        + "leave out the rest"
                    : "no pair in which both answers have tokens of the assistant within the first \(length)")
        }
        (self.skipped, self.truncated, files) = (skipped, truncated, split.files)
        self.unusable = unusable
        (pairs, validation) = (split.training, split.held)
        order = EpochOrder(count: pairs.count, seed: seed)
        fingerprint = Checksum(of: (pairs + validation).map { $0.map { ($0.inputs, $0.targets) } }).text
    }

    /// Pairs of an epoch.
    public var pairCount: Int { pairs.count }

    private func batch(_ chosen: [[Side]]) -> BatchStream.Batch {
        let sides = chosen.flatMap(\.self)
        return .init(inputs: sides.map(\.inputs), targets: sides.flatMap(\.targets))
    }

    public func batch(from first: Int) -> BatchStream.Batch {
        batch(order.indices(first..<(first + batchSize)).map { pairs[$0] })
    }

    public func validationBatches(limit: Int) -> [BatchStream.Batch] {
        stride(from: 0, to: validation.count, by: batchSize).prefix(limit).map { start in
            batch(Array(validation[start..<min(validation.count, start + batchSize)]))
        }
    }
}
