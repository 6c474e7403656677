import Foundation
import MonetCompute
import Synchronization

/// A Llama decoder whose feed-forward blocks are Monet experts, or dense for comparison.
///
///     let model = try MonetLanguageModel.load("checkpoints/monet-vd-1.4B")
///     let output = try model.forward([[1, 5, 17]], ForwardContext(inferenceOn: CPUBackend()))
///     let logits = try model.logits(output.hidden)
public final class MonetLanguageModel: Sendable {
    /// The model's shape.
    public let configuration: MonetConfiguration
    /// All tensors, by their names in the checkpoint.
    public let parameters: ParameterSet
    /// Strengths that belong to the model, of an edited checkpoint: forward runs without a mask use it.
    public let ownMask: ExpertMask?
    private let embedding: Parameter
    private let layers: [DecoderLayer]
    private let finalNorm: RMSNorm
    private let head: Parameter
    private let rotary: RotaryEmbedding
    private let rotaryTable = Mutex<RotaryTable?>(nil)

    /// Builds the layers from a complete set of tensors.
    public init(configuration: MonetConfiguration, parameters: ParameterSet, ownMask: ExpertMask? = nil)
        throws
    {
        self.configuration = configuration
        self.ownMask = ownMask
        self.parameters = parameters
        embedding = try parameters("model.embed_tokens.weight")
        layers = try (0..<configuration.layerCount).map { try DecoderLayer($0, configuration, parameters) }
        finalNorm = RMSNorm(
            weight: try parameters("model.norm.weight"), epsilon: Float(configuration.rmsNormEpsilon))
        head = configuration.tieWordEmbeddings ? embedding : try parameters("lm_head.weight")
        rotary = RotaryEmbedding(configuration)
    }

    /// What a forward pass gives.
    public struct ForwardOutput {
        /// After the final norm, `[tokens, d]`.
        public let hidden: Variable
        /// Input of every layer and the final norm's output, if asked for.
        public let hiddenStates: [Tensor]
        /// The routing of each layer that owns a router.
        public let routings: [(layer: Int, routing: Routing)]

        /// The values of each sequence's last `count` tokens.
        func lastTokens(_ count: Int, sequences: Int) -> ForwardOutput {
            func last(_ tensor: Tensor) -> Tensor { tensor.lastRows(count, of: sequences) }
            return ForwardOutput(
                hidden: Variable(last(hidden.value)), hiddenStates: hiddenStates.map(last),
                routings: routings.map { layer, routing in
                    let (left, right) = (last(routing.left.value), last(routing.right.value))
                    let experts = ExpertRouting(
                        left: left, right: right, strengths: routing.experts.strengths)
                    return (
                        layer,
                        Routing(
                            left: Variable(left), right: Variable(right), experts: experts,
                            leftObjective: routing.leftObjective, rightObjective: routing.rightObjective)
                    )
                })
        }
    }

    /// Runs token ids through the layers.
    ///
    /// - Parameters:
    ///   - sequences: token ids, lists of any length.
    ///   - caches: earlier tokens of each sequence, to which these are added.
    /// - Returns: rows of the sequences' tokens, one sequence after the other.
    /// - Throws: `ModelError.contextExceeded`, `ModelError.invalidInput`, `ComputeError`.
    public func forward(
        _ sequences: [[Int32]], caches: [KVCache]? = nil, _ context: ForwardContext
    ) throws -> ForwardOutput {
        guard let length = sequences.first?.count, !sequences.contains(where: \.isEmpty) else {
            throw ModelError.invalidInput(reason: "a batch needs one or more sequences, not empty")
        }
        if context.mask == nil { context.mask = ownMask }
        let starts = caches?.map(\.count) ?? Array(repeating: 0, count: sequences.count)
        let reach = zip(starts, sequences).reduce(0) { max($0, $1.0 + $1.1.count) }
        if caches == nil, isStretched(length: reach), !sequences.allSatisfy({ $0.count == length }) {
            throw ModelError.invalidInput(
                reason:
                    "beyond the trained length, dynamic rope scaling runs sequences of one length together")
        }
        if let caches {
            guard caches.count == sequences.count else {
                throw ModelError.invalidInput(
                    reason: "\(caches.count) caches for a batch of \(sequences.count)")
            }
            for (cache, sequence) in zip(caches, sequences) { try cache.reserve(sequence.count) }
            if isStretched(length: reach) || caches.contains(where: \.isStretched) {
                // Each length has rotations of its own: one sequence at a time.
                if sequences.count > 1 {
                    throw ModelError.invalidInput(
                        reason: "beyond the trained length, dynamic rope scaling runs one sequence at a time")
                }
                if starts[0] > 0 { return try recompute(sequences[0], caches[0], context) }
            }
        }
        let positions = SequencePositions(
            counts: sequences.map(\.count), starts: starts, caches: caches, rotary: rotations(length: reach))
        var x = try context.tape.embed(sequences.flatMap { $0 }, table: context(embedding))
        if !context.replacedEmbeddings.isEmpty { x = try replaced(x, positions, context) }
        var hiddenStates: [Tensor] = []
        var routing: Routing?
        var routings: [(Int, Routing)] = []
        for (index, layer) in layers.enumerated() {
            if context.keepsHiddenStates { hiddenStates.append(x.value) }
            x = try layer(x, routing: &routing, positions: positions, layer: index, context)
            if layer.router != nil, let routing { routings.append((index, routing)) }
        }
        for (index, sequence) in sequences.enumerated() {
            caches?[index].append(sequence, isStretched: isStretched(length: reach))
        }
        let hidden = try finalNorm(x, context)
        if context.keepsHiddenStates { hiddenStates.append(hidden.value) }
        return ForwardOutput(hidden: hidden, hiddenStates: hiddenStates, routings: routings)
    }

    /// Embeddings with those rows replaced that the context gives for their positions.
    private func replaced(_ x: Variable, _ positions: SequencePositions, _ context: ForwardContext) throws
        -> Variable
    {
        let values = x.value.copy()
        let width = configuration.hiddenSize
        var row = 0
        for (count, start) in zip(positions.counts, positions.starts) {
            for (position, embedding) in context.replacedEmbeddings
            where (start..<(start + count)).contains(position) {
                guard embedding.count == width else {
                    throw ModelError.invalidInput(
                        reason: "an embedding of \(embedding.count) values, expected \(width)")
                }
                values.slice((row + position - start)..<(row + position - start + 1)).overwrite(embedding)
            }
            row += count
        }
        return Variable(values)
    }

    /// A mask on top of the model's own.
    public func withOwnMask(_ mask: ExpertMask) -> ExpertMask { ownMask?.union(mask) ?? mask }

    /// Whether the rotations of all positions change with the length, as with dynamic scaling.
    public var rotationsDependOnLength: Bool { rotary.changesWithLength }

    private func isStretched(length: Int) -> Bool {
        rotary.changesWithLength && length > configuration.maxPositionEmbeddings
    }

    /// Runs earlier tokens again with new ones: dynamic scaling rotates all keys anew at each length,
    /// so that keys rotated for a shorter one would give other values than no cache at all.
    private func recompute(_ new: [Int32], _ cache: KVCache, _ context: ForwardContext) throws
        -> ForwardOutput
    {
        let earlier = cache.tokens
        cache.truncate(to: 0)
        do {
            return try forward([earlier + new], caches: [cache], context).lastTokens(new.count, sequences: 1)
        } catch {
            cache.truncate(to: 0)
            throw error
        }
    }

    /// Next-token logits of hidden states, `[tokens, vocabulary]`.
    public func logits(_ hidden: Tensor, on backend: any Backend) throws -> Tensor {
        try backend.linear(hidden, weight: head.tensor, bias: nil)
    }

    /// Cross entropy of every token against `targets` (negative: left out), `scale · sum` on the tape.
    public func crossEntropy(
        _ hidden: Variable, targets: [Int32], scale: Float, _ context: ForwardContext
    ) throws -> [Float] {
        try context.tape.crossEntropy(hidden: hidden, weight: context(head), targets: targets, scale: scale)
    }

    /// Rotations for at least `length` positions; kept and grown, unless they depend on the length.
    private func rotations(length: Int) -> RotaryTable {
        if isStretched(length: length) { return rotary.table(length: length) }
        return rotaryTable.withLock { kept in
            if let kept, kept.cosine.rowCount >= length { return kept }
            var room = max(length, 2 * (kept?.cosine.rowCount ?? 32))
            if rotary.changesWithLength { room = min(room, configuration.maxPositionEmbeddings) }
            let table = rotary.table(length: room)
            kept = table
            return table
        }
    }
}

extension Tensor {
    /// The last `count` outermost rows of each of `parts` equal parts, `[parts × count, …]`.
    fileprivate func lastRows(_ count: Int, of parts: Int) -> Tensor {
        let length = shape[0] / parts
        if count == length { return self }
        let result = Tensor(uninitialized: [parts * count] + shape.dropFirst(), dtype: dtype)
        for part in 0..<parts {
            let rows = slice((part * length + length - count)..<((part + 1) * length))
            result.slice((part * count)..<((part + 1) * count)).address.copyMemory(
                from: rows.address, byteCount: rows.byteCount)
        }
        return result
    }
}
