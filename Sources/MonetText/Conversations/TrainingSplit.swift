import MonetFoundation
import Synchronization

/// What files contribute to training by their weights, and what is held out of each.
struct TrainingSplit<Item> {
    private(set) var training: [Item] = []
    private(set) var held: [Item] = []
    /// Whether there were items and none is left to train on.
    private(set) var isAllHeldOut = false

    /// How much of each file is used.
    private(set) var files: [UsedFile] = []

    /// - `validationShare`: the share that is held out of the items that are used of each file.
    /// - `content`: what the items are called.
    /// - `read`: the items of a file.
    /// - Throws: `TextError.malformedSource` for a weight that uses nothing of a file.
    init(
        _ parts: [ConversationStream.Part], validationShare: Double, seed: UInt64,
        content: String, read: (_ path: String) throws -> [Item]
    ) throws {
        var generator = SplitMix64(seed: seed)
        var count = 0
        for part in parts {
            var own = try read(part.path)
            count += own.count
            own.shuffle(using: &generator)
            let heldCount = Int((Double(own.count) * validationShare * min(1, part.weight)).rounded())
            held += own.prefix(heldCount)
            own.removeFirst(heldCount)
            let used = Int((Double(own.count) * part.weight).rounded())
            // Where it is the only one, whoever asked says what is missing.
            guard used > 0 || own.isEmpty && (heldCount == 0 || parts.count == 1) else {
                throw TextError.malformedSource(
                    path: part.path, line: nil,
                    reason:
                        "a weight of \(part.weight) with a validation share of \(validationShare) leaves none of "
                        + "its \(own.count + heldCount) \(content) to train on")
            }
            training += (0..<used).map { own[$0 % own.count] }
            files.append(UsedFile(path: part.path, used: used, heldOut: heldCount))
        }
        training.shuffle(using: &generator)
        // Evaluations read the first ones: these come from all files.
        held.shuffle(using: &generator)
        isAllHeldOut = training.isEmpty && count > 0
    }
}

/// What files hold that cannot be learned: no conversation or pair, or one that the template refuses.
public struct UnusableEntries: Sendable, Equatable {
    /// How many were left out.
    public private(set) var count = 0
    /// What is wrong with the first one, and where it stands.
    public private(set) var first: TextError?
    /// Whether they are left out; otherwise they are errors.
    private let areSkipped: Bool

    init(areSkipped: Bool) { self.areSkipped = areSkipped }

    /// Reads an entry; nil for one that is left out.
    mutating func reading<Item>(_ body: () throws -> Item?) throws -> Item? {
        do { return try body() } catch let error as TextError where areSkipped {
            count += 1
            first = first ?? error
            return nil
        }
    }
}

/// How much of a file a run uses.
public struct UsedFile: Sendable, Equatable {
    /// The file.
    public let path: String
    /// Conversations or pairs of an epoch, and those held out.
    public let used: Int, heldOut: Int
}

/// An endless stream of the numbers below a count, every epoch in another order.
struct EpochOrder: Sendable {
    let count: Int
    let seed: UInt64
    /// The order of the epoch that was asked for last.
    private let last = SharedOrder()

    init(count: Int, seed: UInt64) {
        self.count = count
        self.seed = seed
    }

    /// The numbers at places of the stream.
    func indices(_ places: Range<Int>) -> [Int] {
        places.map { order(epoch: $0 / count)[$0 % count] }
    }

    private func order(epoch: Int) -> [Int] {
        last.order(epoch: epoch) {
            var generator = SplitMix64(seed: seed &+ 0x9e37 &* UInt64(truncatingIfNeeded: epoch + 1))
            return (0..<count).shuffled(using: &generator)
        }
    }
}

/// The order of one epoch, kept until another is asked for.
private final class SharedOrder: Sendable {
    private let kept = Mutex<(epoch: Int, order: [Int])?>(nil)

    func order(epoch: Int, make: () -> [Int]) -> [Int] {
        kept.withLock { kept in
            if let kept, kept.epoch == epoch { return kept.order }
            let order = make()
            kept = (epoch, order)
            return order
        }
    }
}

extension ConversationEncoder.Encoded {
    /// Inputs of at most `length` tokens, and the next token of each that the assistant says, else −1.
    func training(length: Int) -> (inputs: [Int32], targets: [Int32]) {
        let count = max(0, min(ids.count - 1, length))
        return (Array(ids.prefix(count)), (0..<count).map { isAssistant[$0 + 1] ? ids[$0 + 1] : -1 })
    }
}

extension Checksum {
    /// Of rows of sequences with their targets, all in order.
    init(of rows: [[(inputs: [Int32], targets: [Int32])]]) {
        self.init()
        func add(_ numbers: [Int32]) { numbers.withUnsafeBytes { update($0) } }
        for row in rows {
            add([Int32(truncatingIfNeeded: row.count)])
            for sequence in row {
                add([Int32(truncatingIfNeeded: sequence.inputs.count)])
                add(sequence.inputs)
                add(sequence.targets)
            }
        }
    }
}
