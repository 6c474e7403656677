import MonetFoundation

/// What training reads: batches by number, the same whenever they are asked for.
public protocol BatchSource: Sendable {
    /// The batch whose first row is number `first` of an endless stream.
    func batch(from first: Int) -> BatchStream.Batch
    /// Held-out batches, at most `limit`.
    func validationBatches(limit: Int) -> [BatchStream.Batch]
    /// Another one means another text, or another part of it held out.
    var fingerprint: String { get }
}

/// Windows of a corpus in a shuffled, repeatable order.
///
/// Batch `n` depends on the seed and `n` alone, so a resumed run reads the same batches as an
/// uninterrupted one. Every epoch is a new permutation of all windows, with a new offset.
public struct BatchStream: BatchSource {
    /// The corpus.
    public let corpus: Corpus
    /// Tokens per sequence; targets extend one token further.
    public let length: Int
    /// Sequences per batch.
    public let batchSize: Int
    /// The seed that determines the order.
    public let seed: UInt64
    private let windows: Int
    /// Documents that are sequences of their own, in the order of their tokens.
    private let separated: [(tokens: Range<Int>, label: String)]

    /// Inputs, with the next token of each.
    public struct Batch: Sendable, Equatable {
        /// Sequences of ids.
        public var inputs: [[Int32]]
        /// The next token of each input, sequence after sequence; −1 where it does not count.
        public var targets: [Int32]
        /// The label of each sequence, nil for other ones; empty if the stream separates no labels.
        public var labels: [String?]

        /// Joins inputs and targets.
        public init(inputs: [[Int32]], targets: [Int32], labels: [String?] = []) {
            (self.inputs, self.targets, self.labels) = (inputs, targets, labels)
        }
    }

    /// - `separating`: labels whose documents become sequences of their own, so that nothing attends to or from them.
    /// - Throws: `TextError.malformedCorpus` if the training split is shorter than two windows, or has no document of
    ///   such a label.
    public init(corpus: Corpus, length: Int, batchSize: Int, seed: UInt64, separating labels: [String] = [])
        throws
    {
        self.corpus = corpus
        self.length = length
        self.batchSize = batchSize
        self.seed = seed
        separated = try Self.documents(of: corpus, labels)
        // One window is reserved so that the offset of an epoch never runs past the end.
        windows = (corpus.tokenCount(.train) - 1) / max(1, length) - 1
        guard windows >= 1, length >= 1, batchSize >= 1 else {
            throw TextError.malformedCorpus(
                path: corpus.folder,
                reason: "\(corpus.tokenCount(.train)) training tokens are too few for sequences of \(length)")
        }
    }

    /// That of the corpus.
    public var fingerprint: String { corpus.fingerprint }

    private static func documents(of corpus: Corpus, _ labels: [String]) throws -> [(
        tokens: Range<Int>, label: String
    )] {
        if labels.isEmpty { return [] }
        let known = corpus.labelSets.flatMap(\.labels)
        if let missing = labels.first(where: { !known.contains($0) }) {
            throw TextError.malformedCorpus(
                path: corpus.folder,
                reason: "no label \"\(missing)\"; it has \(known.joined(separator: ", "))")
        }
        var end = 0
        let documents = try corpus.documents(in: .train).compactMap {
            document -> (tokens: Range<Int>, label: String)? in
            guard document.tokens.lowerBound >= end else {
                throw TextError.malformedCorpus(
                    path: corpus.folder,
                    reason:
                        "a document begins at token \(document.tokens.lowerBound), before the end of another "
                        + "one at \(end)")
            }
            end = document.tokens.upperBound
            let own = zip(corpus.labelSets, document.labels).compactMap { $1 >= 0 ? $0.labels[$1] : nil }
            return labels.first(where: own.contains).map { (document.tokens, $0) }
        }
        if let missing = labels.first(where: { label in !documents.contains { $0.label == label } }) {
            throw TextError.malformedCorpus(
                path: corpus.folder,
                reason: "no training document has the label \"\(missing)\" and none of those before it")
        }
        return documents
    }

    /// Batch `index` of the endless stream.
    public func batch(_ index: Int) -> Batch { batch(from: index * batchSize) }

    /// The batch whose first sequence is number `first` of the endless stream.
    public func batch(from first: Int) -> Batch {
        var batch = Batch(inputs: [], targets: [])
        for sequence in 0..<batchSize {
            let position = first + sequence
            let epoch = position / windows
            var generator = SplitMix64(
                seed: seed &+ UInt64(truncatingIfNeeded: epoch) &* 0xd1b5_4a32_d192_ed03)
            let offset = Int(generator.next() % UInt64(length))
            let window = permuted(position % windows, key: generator.next())
            let start = offset + window * length
            let tokens = corpus.tokens(in: .train, start..<(start + length + 1))
            batch.targets += tokens.dropFirst()
            guard !separated.isEmpty else {
                batch.inputs.append(Array(tokens.dropLast()))
                continue
            }
            for (range, label) in sequences(in: start..<(start + length)) {
                batch.inputs.append(Array(tokens[(range.lowerBound - start)..<(range.upperBound - start)]))
                batch.labels.append(label)
            }
        }
        return batch
    }

    /// The parts of a window, divided where documents of separated labels begin and end.
    private func sequences(in window: Range<Int>) -> [(tokens: Range<Int>, label: String?)] {
        var (low, high) = (0, separated.count)
        while low < high {
            let middle = (low + high) / 2
            if separated[middle].tokens.upperBound <= window.lowerBound {
                low = middle + 1
            } else {
                high = middle
            }
        }
        var result: [(tokens: Range<Int>, label: String?)] = []
        func append(_ range: Range<Int>, _ label: String?) {
            if range.isEmpty { return }
            if let last = result.last, last.label == label {
                result[result.count - 1].tokens = last.tokens.lowerBound..<range.upperBound
            } else {
                result.append((range, label))
            }
        }
        var place = window.lowerBound
        for (tokens, label) in separated[low...] {
            if tokens.lowerBound >= window.upperBound { break }
            let own = tokens.clamped(to: window)
            append(place..<own.lowerBound, nil)
            append(own, label)
            place = own.upperBound
        }
        append(place..<window.upperBound, nil)
        return result
    }

    /// A keyed permutation of `0..<windows`: a Feistel network over the next power of four, applied
    /// repeatedly until the result is in range (cycle walking).
    private func permuted(_ index: Int, key: UInt64) -> Int {
        var half = 1
        while 1 << (2 * half) < windows { half += 1 }
        let mask = UInt64(1) << UInt64(half) - 1
        var value = UInt64(index)
        repeat {
            var (left, right) = (value >> UInt64(half), value & mask)
            for round in 0..<4 as Range<UInt64> {
                var mixer = SplitMix64(seed: key ^ (right << 8 | round))
                (left, right) = (right, (left ^ mixer.next()) & mask)
            }
            value = left << UInt64(half) | right
        } while value >= UInt64(windows)
        return Int(value)
    }

    /// Consecutive windows of the held-out split, `batchSize` at a time, up to `limit` batches.
    public func validationBatches(limit: Int) -> [Batch] {
        let count = corpus.tokenCount(.validation)
        let available = max(0, (count - 1) / length)
        return (0..<min(limit, (available + batchSize - 1) / batchSize)).map { batch in
            var inputs: [[Int32]] = []
            var targets: [Int32] = []
            for window in (batch * batchSize)..<min(available, (batch + 1) * batchSize) {
                let tokens = corpus.tokens(in: .validation, (window * length)..<((window + 1) * length + 1))
                inputs.append(Array(tokens.dropLast()))
                targets += tokens.dropFirst()
            }
            return Batch(inputs: inputs, targets: targets)
        }
    }
}
