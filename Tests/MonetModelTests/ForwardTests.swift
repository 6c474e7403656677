import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// A forward pass as a value: it changes nothing, and what it observes and replaces is what the layers compute.
@Suite struct ForwardTests {
    private let ids: [Int32] = [1, 5, 9, 33, 66, 2, 8]

    private func model(_ family: Family = .vertical) throws -> MonetLanguageModel {
        var c = smallConfiguration(family)
        (c.attentionHeads, c.keyValueHeads, c.headWidth) = (4, 2, 6)
        return try scrambledModel(c, seed: 21)
    }

    private func values(_ output: ForwardOutput) -> [Double] {
        output.hidden.value.floats().map(Double.init)
    }

    // MARK: Masks

    /// The model's own mask and a sequence's multiply; neither can undo the other, and no reader of routing sees
    /// what either removes.
    @Test(arguments: Family.allCases)
    func masksCompose(family: Family) throws {
        let plain = try model(family)
        let own = UnitMask.random(share: 0.3, of: plain.units, seed: 1)
        var other = UnitMask.random(share: 0.2, of: plain.units, seed: 2)
        other.set((0..<plain.units.unitsPerGroup).map { (index: $0, strength: Float(1.5)) }, group: 0)
        let edited = try MonetLanguageModel(
            configuration: plain.configuration, parameters: plain.parameters, ownMask: own)
        func run(_ model: MonetLanguageModel, _ mask: UnitMask?) throws -> ForwardOutput {
            var input = ForwardInput([ids], mask: mask)
            input.keepsUnits = true
            return try model.forward(input)
        }
        for (mask, both) in [(nil, own), (other, own.union(other))] {
            let (found, expected) = (try run(edited, mask), try run(plain, both))
            #expect(relativeError(values(found), values(expected)) < 1e-5)
            #expect(found.groups.count == plain.units.groups)
            for group in found.groups {
                var reader = group.reader()
                var seen = 0
                for row in ids.indices {
                    reader.visit(row) { unit, score in
                        seen += 1
                        #expect(score > 0 && both.strength(of: unit, group: group.group) > 0)
                    }
                }
                #expect(seen > 0)
            }
        }
        #expect(throws: ModelError.self) { try run(plain, UnitMask(unitsPerGroup: 3)) }
    }

    // MARK: Hooks

    @Test func namesAreTransformerLens() {
        for kind in HookPoint.Kind.ofEveryLayer + [.g1, .g2, .mlpPost] {
            let point = HookPoint(kind, layer: 12)
            #expect(HookPoint(point.description) == point)
        }
        #expect(HookPoint(.residPost, layer: 3).description == "blocks.3.hook_resid_post")
        #expect(HookPoint("blocks.0.attn.hook_pattern") == HookPoint(.pattern, layer: 0))
        for bad in ["blocks.-1.hook_resid_pre", "blocks.x.hook_q", "hook_embed", "blocks.1.resid_pre", ""] {
            #expect(HookPoint(bad) == nil, "\(bad)")
        }
    }

    /// Every place at once: the residual stream is the sum of what layers add, a replaced value by itself changes
    /// nothing, and the shapes are those promised.
    @Test(arguments: Family.allCases, Device.allCases)
    func observedValuesFitTogether(family: Family, device: Device) throws {
        let (model, backend) = (try model(family).prepared(on: device.backend), device.backend)
        let batch: [[Int32]] = [ids, [4, 4, 30]]
        let rows = 10
        let points = model.hookPoints
        var input = ForwardInput(batch)
        input.hooks.observed = Set(points)
        for point in points { input.hooks.write(point) { value, _ in value } }
        let output = try model.forward(input, on: backend)
        let plain = try model.forward(ForwardInput(batch), on: backend)
        #expect(relativeError(values(output), values(plain)) < 1e-5)
        func value(_ kind: HookPoint.Kind, _ layer: Int) throws -> Tensor {
            try #require(output.observations[HookPoint(kind, layer: layer)]).value
        }
        func sum(_ a: Tensor, _ b: Tensor) -> [Double] { zip(a.floats(), b.floats()).map { Double($0 + $1) } }
        for layer in 0..<3 {
            let (pre, middle) = (try value(.residPre, layer), try value(.residMid, layer))
            #expect(
                relativeError(middle.floats().map(Double.init), sum(pre, try value(.attnOut, layer))) < 1e-6)
            let post = try value(.residPost, layer)
            #expect(
                relativeError(post.floats().map(Double.init), sum(middle, try value(.mlpOut, layer))) < 1e-6)
            if layer < 2 { #expect(try value(.residPre, layer + 1).floats() == post.floats()) }
            #expect(try value(.q, layer).shape == [rows, 4, 6] && value(.k, layer).shape == [rows, 2, 6])
            #expect(try value(.v, layer).shape == [rows, 2, 6] && value(.z, layer).shape == [rows, 4, 6])
            // Probabilities of a token's own sequence up to itself.
            let pattern = try value(.pattern, layer)
            #expect(pattern.shape == [rows, 4, 7])
            let p = pattern.floats()
            for (row, position) in (Array(0..<7) + Array(0..<3)).enumerated() {
                for head in 0..<4 {
                    let line = p[((row * 4 + head) * 7)..<((row * 4 + head + 1) * 7)]
                    #expect(abs(line.prefix(position + 1).reduce(0, +) - 1) < 1e-5)
                    #expect(line.dropFirst(position + 1).allSatisfy { $0 == 0 })
                }
            }
            let hasRouter = family != .dense && layer != 1
            #expect((output.observations[HookPoint(.g1, layer: layer)] != nil) == hasRouter)
            if hasRouter { #expect(try value(.g2, layer).shape == [rows, 2, 10]) }
            #expect((output.observations[HookPoint(.mlpPost, layer: layer)] != nil) == (family == .dense))
        }
    }

    /// A place that the model does not have is an error, not a hook that never runs.
    @Test(
        arguments: zip(
            [Family.vertical, .horizontal, .dense],
            ["blocks.3.hook_resid_post", "blocks.1.moe.hook_g1", "blocks.0.moe.hook_g2"]))
    func missingPlacesAreErrors(family: Family, name: String) throws {
        let model = try model(family)
        let point = try #require(HookPoint(name))
        var observing = ForwardInput([ids])
        observing.hooks.observed = [point]
        #expect(throws: ModelError.self) { try model.forward(observing) }
        var writing = ForwardInput([ids])
        writing.hooks.write(HookPoint(family == .dense ? .g1 : .mlpPost, layer: 0)) { value, _ in value }
        #expect(throws: ModelError.self) { try model.forward(writing) }
        // Masks of other models, and gradients through caches.
        var mask = UnitMask(model.units)
        mask.remove([1], group: model.units.groups)
        #expect(throws: ModelError.self) { try model.forward(ForwardInput([ids], mask: mask)) }
        let cached = ForwardInput([ForwardSequence(ids, cache: KVCache(configuration: model.configuration))])
        #expect(throws: ModelError.self) { try model.forward(cached, variables: ParameterVariables()) }
    }

    /// Replacing a value by that of another text gives what follows from it: with the whole residual stream of
    /// another text, the rest of the pass is that text's.
    @Test func replacedValuesReplaceWhatFollows() throws {
        let model = try model()
        let point = HookPoint(.residPost, layer: 1)
        var other = ForwardInput([ids.reversed()])
        other.hooks.observed = [point]
        let source = try model.forward(other)
        let patch = try #require(source.observations[point])
        var input = ForwardInput([ids])
        input.hooks.write(point) { _, _ in Variable(patch.value) }
        #expect(try values(model.forward(input)) != values(model.forward(ForwardInput([ids]))))
        // The router of the last group lies after the place.
        #expect(relativeError(try values(model.forward(input)), values(source)) < 1e-6)
        var wrong = ForwardInput([ids])
        wrong.hooks.write(point) { _, _ in Variable(Tensor(zeros: [1, 36])) }
        #expect(throws: ModelError.self) { try model.forward(wrong) }
    }

    /// Gradients of observed values are derivatives of the loss by what is added there, as differences in double
    /// precision on the reference device; also through attention patterns and routing probabilities.
    @Test(
        arguments: [
            HookPoint(.residMid, layer: 1), HookPoint(.q, layer: 0), HookPoint(.k, layer: 1),
            HookPoint(.v, layer: 2), HookPoint(.z, layer: 1), HookPoint(.pattern, layer: 0),
            HookPoint(.pattern, layer: 2), HookPoint(.mlpOut, layer: 0), HookPoint(.g1, layer: 2),
            HookPoint(.g2, layer: 0),
        ], Device.allCases)
    func gradientsOfObservedValues(point: HookPoint, device: Device) throws {
        let model = try model()
        let targets = ids.dropFirst() + [-1]
        let backend = device.backend
        let moved = try model.moved(to: backend)
        var input = ForwardInput([ids])
        input.hooks.observed = [point]
        let output = try moved.forward(input, variables: ParameterVariables(), on: backend)
        _ = try moved.crossEntropy(output, targets: Array(targets))
        try output.backward()
        let observed = try #require(output.observations[point])
        let gradient = try #require(observed.gradient).floats().map(Double.init)
        let value = observed.value.floats().map(Double.init)

        let reference = ReferenceBackend()
        let exact = try model.moved(to: reference)
        func loss(_ index: Int, _ step: Double) throws -> Double {
            var input = ForwardInput([ids])
            input.hooks.write(point) { value, tape in
                var delta = Reference(zeros: value.value.shape)
                delta.values[index] = step
                // The step is exact in float32, in which it crosses over.
                return try tape.add(
                    value,
                    Variable(reference.tensor(Tensor(delta.values.map(Float.init), shape: delta.shape))))
            }
            let output = try exact.forward(input, on: reference)
            return try exact.crossEntropy(output, targets: Array(targets)).floats()
                .reduce(0.0) { $0 + Double($1) }
        }
        // Where a probability is zero nothing was selected, or nothing is seen.
        let places = value.indices.filter { point.kind == .residMid || value[$0] != 0 }
        let indices = spread(places.count, limit: 8).map { places[$0] }
        let step = 0x1p-10
        for index in indices {
            let slope = try (loss(index, step) - loss(index, -step)) / (2 * step)
            // Losses cross over in float32, 1e-6 of some 25 nats; a larger step could move a selection.
            #expect(abs(gradient[index] - slope) < 5e-3 * max(1, abs(slope)), "\(index)")
        }
    }

    /// Embeddings in the place of tokens: the tokens' own give the tokens' result, and gradients reach them.
    @Test(arguments: Device.allCases)
    func embeddingsAreSegments(device: Device) throws {
        let (model, backend) = (try model().moved(to: device.backend), device.backend)
        let table = try model.parameters("model.embed_tokens.weight").tensor
        let rows = Variable(try backend.embed([9, 33], table: table), requiresGradient: true)
        let sequence = ForwardSequence(segments: [
            .tokens([1, 5]), .embeddings(rows), .tokens([66]), .tokens([2, 8]),
        ])
        let input = ForwardInput([sequence])
        let plain = try values(model.forward(ForwardInput([ids]), on: backend))
        #expect(relativeError(try values(model.forward(input, on: backend)), plain) < 1e-6)
        let variables = ParameterVariables()
        let output = try model.forward(input, variables: variables, on: backend)
        _ = try model.crossEntropy(output, targets: ids.dropFirst() + [-1])
        try output.backward()
        let found = try #require(rows.gradient)
        // Each of these tokens stands once in the text: the table's gradient has the same rows.
        let whole = ParameterVariables()
        let other = try model.forward(ForwardInput([ids]), variables: whole, on: backend)
        _ = try model.crossEntropy(other, targets: ids.dropFirst() + [-1])
        try other.backward()
        let expected = try #require(whole.gradient(of: model.parameters("model.embed_tokens.weight")))
        #expect(relativeError(found, try backend.embed([9, 33], table: expected)) < 1e-5)
        // A cache of embeddings goes on as one of tokens.
        var start = sequence
        start.cache = KVCache(configuration: model.configuration)
        let cache = try model.forward(ForwardInput([start]), on: backend).caches[0]
        #expect(cache.tokens == [1, 5, -1, -1, 66, 2, 8])
        let next = try model.forward(ForwardInput([ForwardSequence([3], cache: cache)]), on: backend)
        let last = try values(model.forward(ForwardInput([ids + [3]]), on: backend)).suffix(36)
        #expect(relativeError(values(next), Array(last)) < 1e-5)
        #expect(throws: ModelError.self) {
            let narrow = Variable(try backend.zeros([1, 5], dtype: .float32))
            _ = try model.forward(
                ForwardInput([ForwardSequence(segments: [.embeddings(narrow)])]), on: backend)
        }
    }
}
