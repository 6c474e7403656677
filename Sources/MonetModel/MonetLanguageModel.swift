import MonetCompute
import Synchronization

/// A Llama decoder whose feed-forward blocks are Monet experts, or dense for comparison.
///
///     let model = try MonetLanguageModel.load("checkpoints/monet-vd-1.4B")
///     let output = try model.forward(ForwardInput([[1, 5, 17]]))
///     let logits = try model.logits(output.hidden.value)
public final class MonetLanguageModel: Sendable {
    /// The model's shape.
    public let configuration: MonetConfiguration
    /// All tensors, by their names in the checkpoint.
    public let parameters: ParameterSet
    /// Strengths that belong to the model, from an edited checkpoint. They apply in every forward pass.
    public let ownMask: UnitMask?
    /// Low-rank adapters beside the projections of attention, if the model has any.
    public let adapters: LowRankAdapters?
    /// The model that this one was tuned from, if its checkpoint says so.
    public let tunedFrom: TunedOrigin?
    private let embedding: Parameter
    let layers: [DecoderLayer]
    private let finalNorm: RMSNorm
    private let head: Parameter
    private let rotary: RotaryEmbedding
    private let rotaryTable = Mutex<RotaryTable?>(nil)
    /// Whether all weights were found to be finite; set when a pass gave values that are not.
    let weightsAreFinite = Mutex(false)

    /// Builds the layers from a complete set of tensors.
    public convenience init(
        configuration: MonetConfiguration, parameters: ParameterSet, ownMask: UnitMask? = nil,
        adapters: LowRankAdapters? = nil, tunedFrom: TunedOrigin? = nil
    ) throws {
        try self.init(
            configuration, parameters, ownMask, adapters, tunedFrom,
            layers: try (0..<configuration.layerCount).map {
                try DecoderLayer($0, configuration, parameters, adapters)
            })
    }

    private init(
        _ configuration: MonetConfiguration, _ parameters: ParameterSet, _ ownMask: UnitMask?,
        _ adapters: LowRankAdapters?, _ tunedFrom: TunedOrigin?, layers: [DecoderLayer]
    ) throws {
        self.configuration = configuration
        self.ownMask = ownMask
        self.adapters = adapters
        self.tunedFrom = tunedFrom
        self.parameters = parameters
        self.layers = layers
        embedding = try parameters("model.embed_tokens.weight")
        finalNorm = RMSNorm(
            weight: try parameters("model.norm.weight"), epsilon: Float(configuration.rmsNormEpsilon))
        head = configuration.tieWordEmbeddings ? embedding : try parameters("lm_head.weight")
        rotary = RotaryEmbedding(configuration)
    }

    /// The model with its weights on a device.
    public func moved(to backend: any Backend) throws -> MonetLanguageModel {
        try MonetLanguageModel(
            configuration: configuration, parameters: parameters.moved(to: backend), ownMask: ownMask,
            adapters: adapters, tunedFrom: tunedFrom)
    }

    /// The model with its weights on a device and, for passes without gradients, in the layout that it runs
    /// fastest.
    public func prepared(on backend: any Backend) throws -> MonetLanguageModel {
        let moved = try parameters.moved(to: backend)
        let layers = try (0..<configuration.layerCount).map {
            try DecoderLayer($0, configuration, moved, adapters).prepared(on: backend)
        }
        return try MonetLanguageModel(configuration, moved, ownMask, adapters, tunedFrom, layers: layers)
    }

    /// The units for interpretability: experts or neurons.
    public var units: UnitLayout { configuration.feedForward.units(layerCount: configuration.layerCount) }

    /// All places that a forward pass can observe and replace, layer by layer.
    public var hookPoints: [HookPoint] {
        (0..<configuration.layerCount).flatMap { layer in
            (HookPoint.Kind.ofEveryLayer + configuration.feedForward.hooks(layer))
                .map { HookPoint($0, layer: layer) }
        }
    }

    private func hasHook(_ point: HookPoint) -> Bool {
        (0..<configuration.layerCount).contains(point.layer)
            && (HookPoint.Kind.ofEveryLayer + configuration.feedForward.hooks(point.layer))
                .contains(point.kind)
    }

    /// Checks that the model has some places, so that a misspelt one is not silently never reached.
    ///
    /// - Throws: `ModelError.invalidInput`.
    public func check(_ points: some Sequence<HookPoint>) throws {
        guard let missing = points.first(where: { !hasHook($0) }) else { return }
        let layers = (0..<configuration.layerCount)
        let places = HookPoint.Kind.ofEveryLayer + configuration.feedForward.hooks(missing.layer)
        throw ModelError.invalidInput(
            reason: "\(missing): no place of this model; "
                + (layers.contains(missing.layer)
                    ? "layer \(missing.layer) has \(places.map(\.rawValue).joined(separator: ", "))"
                    : "it has \(layers.count) layers"))
    }

    /// Checks that a mask is one of this model's units.
    ///
    /// - Throws: `ModelError.invalidInput`.
    public func check(_ mask: UnitMask) throws {
        guard mask.unitsPerGroup == units.unitsPerGroup, mask.groups.last ?? 0 < units.groups else {
            throw ModelError.invalidInput(
                reason:
                    "a mask for \((mask.groups.last ?? 0) + 1) or more groups of \(mask.unitsPerGroup) units, "
                    + "the model has \(units.groups) of \(units.unitsPerGroup)")
        }
    }

    // MARK: Forward

    /// Runs sequences through the layers, without gradients.
    ///
    /// The pass changes neither the model nor the input: caches with the new tokens are part of the output.
    ///
    /// - Throws: `ModelError.contextExceeded`, `ModelError.invalidInput`, `ModelError.notFinite`, `ComputeError`.
    public func forward(_ input: ForwardInput, on backend: any Backend = CPUBackend()) throws -> ForwardOutput
    {
        let output = try unchecked(input, on: backend)
        try requireFinite(output.hidden.value, of: input, on: backend, "the hidden state")
        return output
    }

    /// The pass without the check that its result is finite.
    func unchecked(_ input: ForwardInput, on backend: any Backend) throws -> ForwardOutput {
        try forward(
            ForwardPass(
                input, own: ownMask, tape: GradientTape(backend: backend, isRecording: false)))
    }

    /// Runs sequences through the layers and records operations for gradients. Gradients of parameters
    /// accumulate in `variables`, those of embeddings and observed values in these themselves.
    ///
    /// - Throws: as the pass without gradients, and also for caches, through which no gradient flows.
    public func forward(
        _ input: ForwardInput, variables: ParameterVariables, on backend: any Backend = CPUBackend()
    ) throws -> ForwardOutput {
        let tape = GradientTape(backend: backend, isRecording: true)
        if variables.onGradient != nil { tape.onLastUse = { try variables.complete($0) } }
        let output = try forward(ForwardPass(input, own: ownMask, tape: tape, variables: variables))
        try requireFinite(output.hidden.value, of: input, on: backend, "the hidden state")
        return output
    }

    private func forward(_ pass: ForwardPass) throws -> ForwardOutput {
        let sequences = pass.input.sequences
        guard let length = sequences.first?.count, sequences.allSatisfy({ $0.count > 0 }) else {
            throw ModelError.invalidInput(reason: "a batch needs one or more sequences, not empty")
        }
        for mask in sequences.compactMap(\.mask) { try check(mask) }
        for steering in sequences.compactMap(\.steering) { try check(steering) }
        try check(pass.input.hooks.points)
        guard !pass.tape.isRecording || sequences.allSatisfy({ $0.cache == nil }) else {
            throw ModelError.invalidInput(
                reason: "a pass with gradients takes no caches: nothing flows through them")
        }
        let starts = sequences.map { $0.cache?.count ?? 0 }
        let reach = zip(starts, sequences).reduce(0) { max($0, $1.0 + $1.1.count) }
        guard reach <= configuration.contextLength else {
            throw ModelError.contextExceeded(tokens: reach, context: configuration.contextLength)
        }
        if isStretched(length: reach) || sequences.contains(where: { $0.cache?.isStretched ?? false }) {
            // Rotations depend on the length: only sequences of one length, without caches, share a pass.
            guard sequences.allSatisfy({ $0.count == length && $0.cache == nil }) || sequences.count == 1
            else {
                throw ModelError.invalidInput(
                    reason: "beyond the trained length, dynamic rope scaling runs one sequence at a time, "
                        + "or several of one length without caches")
            }
            if starts[0] > 0 { return try recompute(pass) }
        }
        let caches = try sequences.map { sequence in
            try sequence.cache?.appending(
                sequence.ids, isStretched: isStretched(length: reach), configuration, on: pass.tape.backend)
        }
        let positions = SequencePositions(
            counts: sequences.map(\.count), starts: starts, caches: caches,
            rotary: try rotations(length: reach, on: pass.tape.backend))
        var x = try embedded(sequences, pass)
        var shared: (any UnitActivations)?
        var groups: [any UnitActivations] = []
        if pass.input.recomputesActivations, pass.tape.isRecording {
            guard pass.input.hooks.points.isEmpty, sequences.allSatisfy({ $0.steering == nil }) else {
                throw ModelError.invalidInput(
                    reason: "a pass that computes activations twice observes and replaces nothing")
            }
            for segment in recomputedSegments {
                let (output, found) = try recomputed(segment, x, positions, pass)
                x = output
                groups += found
            }
        } else {
            for layer in layers {
                x = try layer(x, shared: &shared, positions: positions, pass)
                if let shared, shared.group != groups.last?.group { groups.append(shared) }
            }
        }
        return ForwardOutput(
            hidden: try finalNorm(x, pass), groups: groups, caches: caches.compactMap { $0 },
            routerStatistics: pass.routerStatistics, observations: pass.observations, pass: pass)
    }

    /// Layers that share a router; without routers, single layers.
    private var recomputedSegments: [Range<Int>] {
        let starts = configuration.routerLayers.isEmpty ? Array(layers.indices) : configuration.routerLayers
        return zip(starts, starts.dropFirst() + [layers.count]).map { $0..<$1 }
    }

    /// Runs some layers of which only the input is kept: they run again when their gradient is computed, with the same
    /// operations and thus the same bits (Chen et al. 2016, arXiv 1604.06174).
    private func recomputed(
        _ segment: Range<Int>, _ x: Variable, _ positions: SequencePositions, _ pass: ForwardPass
    ) throws -> (output: Variable, groups: [any UnitActivations]) {
        let nested = pass.nested
        func run(_ input: Variable) throws -> (
            output: Variable, groups: [any UnitActivations], pass: ForwardPass
        ) {
            let inner = nested()
            var (x, shared): (Variable, (any UnitActivations)?) = (input, nil)
            var groups: [any UnitActivations] = []
            for layer in layers[segment] {
                x = try layer(x, shared: &shared, positions: positions, inner)
                if let shared, shared.group != groups.last?.group { groups.append(shared) }
            }
            return (x, groups, inner)
        }
        // Recorded like the second run, for which recording decides between algorithms, and forgotten.
        let first = try run(Variable(x.value, requiresGradient: true))
        pass.routerStatistics += first.pass.routerStatistics
        let backend = pass.tape.backend
        // Parameters need their gradient even if nothing before the segment does.
        let output = pass.tape.record(
            first.output.value, from: [x, Variable(x.value, requiresGradient: true)]
        ) { gradient in
            let input = Variable(x.value, requiresGradient: true)
            let second = try run(input)
            try second.output.add(gradient, on: backend)
            try second.pass.tape.backward()
            if x.requiresGradient, let gradient = input.gradient { try x.add(gradient, on: backend) }
        }
        return (output, first.groups)
    }

    /// Embeddings of all segments, `[tokens, d]`.
    private func embedded(_ sequences: [ForwardSequence], _ pass: ForwardPass) throws -> Variable {
        var rows: [Variable] = []
        var ids: [Int32] = []
        // Consecutive tokens are looked up together.
        func lookUp() throws {
            if !ids.isEmpty { rows.append(try pass.tape.embed(ids, table: pass(embedding))) }
            ids.removeAll()
        }
        for segment in sequences.flatMap(\.segments) where segment.count > 0 {
            switch segment {
            case .tokens(let new): ids += new
            case .embeddings(let given):
                guard given.value.shape == [given.value.rowCount, configuration.hiddenSize] else {
                    throw ModelError.invalidInput(
                        reason: "embeddings of shape \(given.value.shape), expected "
                            + "[tokens, \(configuration.hiddenSize)]")
                }
                try lookUp()
                rows.append(given)
            }
        }
        try lookUp()
        return rows.count == 1 ? rows[0] : try pass.tape.concatenated(rows)
    }

    // MARK: Predictions

    /// The output head, `[vocabulary, d]`.
    var headWeight: Tensor { head.tensor }

    /// Next-token logits of hidden states, `[tokens, vocabulary]`.
    public func logits(_ hidden: Tensor, on backend: any Backend = CPUBackend()) throws -> Tensor {
        let logits = try backend.linear(hidden, weight: head.tensor, bias: nil)
        try requireFinite(logits, on: backend, "the logits")
        return logits
    }

    /// Cross entropy of every token of a pass with `targets` (negative ones are ignored), `[tokens]`; in a
    /// pass with gradients, `scale · sum` is a loss.
    public func crossEntropy(_ output: ForwardOutput, targets: [Int32], scale: Float = 1) throws -> Tensor {
        let losses = try output.pass.tape.crossEntropy(
            hidden: output.hidden, weight: output.pass(head), targets: targets, scale: scale)
        try requireFinite(losses, on: output.pass.tape.backend, "the loss")
        return losses
    }

    /// The same without gradients, of hidden states `[tokens, d]`.
    public func crossEntropy(of hidden: Tensor, targets: [Int32], on backend: any Backend) throws -> Tensor {
        let losses = try backend.crossEntropy(
            hidden: hidden, weight: head.tensor, targets: targets, scale: 1, gradient: nil)
        try requireFinite(losses, on: backend, "the loss")
        return losses
    }

    /// The same, with a scale for each sequence of the pass: `Σ scale · sum` is a loss.
    ///
    /// - `sequences`: their tokens and scales, in order.
    public func crossEntropy(
        _ output: ForwardOutput, targets: [Int32], sequences: [(count: Int, scale: Float)]
    ) throws -> Tensor {
        let losses = try output.pass.tape.crossEntropy(
            hidden: output.hidden, weight: output.pass(head), targets: targets, sequences: sequences)
        try requireFinite(losses, on: output.pass.tape.backend, "the loss")
        return losses
    }

    // MARK: Rotations

    /// Whether the rotations of all positions change with the length, as with dynamic scaling.
    public var rotationsDependOnLength: Bool { rotary.changesWithLength }

    private func isStretched(length: Int) -> Bool {
        rotary.changesWithLength && length > configuration.maxPositionEmbeddings
    }

    /// Runs earlier tokens again with new ones: with dynamic scaling, the rotation of all keys changes with
    /// the length, so that keys rotated for a shorter length would give other values than without a cache.
    private func recompute(_ pass: ForwardPass) throws -> ForwardOutput {
        var input = pass.input
        let new = input.sequences[0].count
        guard let cache = input.sequences[0].cache, !cache.tokens.contains(where: { $0 < 0 }),
            !pass.tape.isRecording
        else {
            throw ModelError.invalidInput(
                reason: "beyond the trained length, dynamic rope scaling needs all tokens again, "
                    + "which a cache of embeddings or a pass with gradients does not have")
        }
        input.sequences[0].segments.insert(.tokens(cache.tokens), at: 0)
        input.sequences[0].cache = cache.prefix(0)
        let whole = try forward(ForwardPass(input, own: ownMask, tape: pass.tape))
        return ForwardOutput(
            hidden: Variable(whole.hidden.value.lastRows(new)),
            groups: whole.groups.map { $0.lastRows(new) },
            caches: whole.caches,
            routerStatistics: whole.routerStatistics,
            observations: whole.observations.mapValues { Variable($0.value.lastRows(new)) }, pass: pass)
    }

    /// Rotations for at least `length` positions; cached and extended, unless they depend on the length.
    func rotations(length: Int, on backend: any Backend) throws -> RotaryTable {
        func table(_ length: Int) throws -> RotaryTable {
            let table = rotary.table(length: length)
            return RotaryTable(
                cosine: try backend.tensor(table.cosine), sine: try backend.tensor(table.sine))
        }
        if isStretched(length: length) { return try table(length) }
        return try rotaryTable.withLock { kept in
            if let kept, kept.cosine.rowCount >= length,
                ObjectIdentifier(type(of: kept.cosine.storage))
                    == ObjectIdentifier(type(of: embedding.tensor.storage))
            {
                return kept
            }
            var room = max(length, 2 * (kept?.cosine.rowCount ?? 32))
            if rotary.changesWithLength { room = min(room, configuration.maxPositionEmbeddings) }
            let new = try table(room)
            kept = new
            return new
        }
    }
}
