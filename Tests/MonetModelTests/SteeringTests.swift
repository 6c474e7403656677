import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// Forced experts and added directions: against the formulas in double precision, and on every path of a pass.
@Suite struct SteeringTests {
    private let ids: [Int32] = [3, 41, 7, 22, 60, 12]

    private func model(_ family: Family) throws -> MonetLanguageModel {
        try scrambledModel(smallConfiguration(family), seed: 8)
    }

    private func steering(_ family: Family, _ positions: Steering.Positions = .all) -> Steering {
        var steering = Steering()
        steering.units = [
            .init(group: 0, index: 37, score: 2.5, positions: positions),
            .init(group: 0, index: 4, score: 0.5, positions: positions),
            .init(group: 1, index: 21, score: 3, positions: positions),
        ]
        steering.directions = [
            .init(
                point: HookPoint(.residPost, layer: 1), vector: (0..<36).map { Float($0 % 5) - 2 },
                scale: 0.3,
                positions: positions),
            .init(
                point: HookPoint(.z, layer: 0), vector: (0..<36).map { Float($0 % 3) }, positions: positions),
        ]
        return steering
    }

    private func logits(
        _ model: MonetLanguageModel, _ sequences: [ForwardSequence], on backend: any Backend = CPUBackend()
    ) throws -> Tensor {
        let output = try model.forward(ForwardInput(sequences), on: backend)
        return try model.logits(output.hidden.value, on: backend)
    }

    private func steered(_ ids: [Int32], _ steering: Steering?, mask: UnitMask? = nil) -> ForwardSequence {
        var sequence = ForwardSequence(ids, mask: mask)
        sequence.steering = steering
        return sequence
    }

    /// The first layer reads the same with and without steering, so that its output differs by score · f_ij(h).
    @Test(arguments: [Family.vertical, .horizontal])
    func aForcedExpertAddsItsOutput(family: Family) throws {
        let model = try model(family)
        var own = Steering()
        own.units = [.init(group: 0, index: 37, score: 2.5, positions: .init([1...2, 5...9]))]
        func pass(_ steering: Steering?) throws -> ForwardOutput {
            var input = ForwardInput([steered(ids, steering)])
            input.hooks.observed = [HookPoint(.mlpIn, layer: 0), HookPoint(.mlpOut, layer: 0)]
            return try model.forward(input)
        }
        let (plain, forced) = (try pass(nil), try pass(own))
        let h = Reference(try plain.observed(.mlpIn, 0))
        var (left, right) = (Reference(zeros: [6, 1, 10]), Reference(zeros: [6, 1, 10]))
        for token in [1, 2, 5] {
            left.values[token * 10 + 3] = 2.5
            right.values[token * 10 + 7] = 1
        }
        func tensor(_ name: String) throws -> Reference {
            Reference(try model.parameters("model.layers.0.moe." + name).tensor)
        }
        let expected =
            family == .horizontal
            ? try ReferenceMath.horizontalExperts(
                h, left: left, right: right, u: tensor("u.weight"), uBias: tensor("u.bias"),
                v: tensor("v.weight"),
                b: tensor("b"))
            : try ReferenceMath.verticalExperts(
                h, left: left, right: right,
                weights: [
                    "u1.weight", "u1.bias", "u2.weight", "u2.bias", "v11.weight", "v12.weight", "v21.weight",
                    "v22.weight", "b1", "b2",
                ].map(tensor))
        let difference = zip(
            try forced.observed(.mlpOut, 0).floats(), try plain.observed(.mlpOut, 0).floats()
        )
        .map { Double($0) - Double($1) }
        // Differences of sums in float32.
        #expect(relativeError(difference, expected.values) < 1e-4)
        var score: Float = 0
        var before: Float = 0
        var reader = forced.routings[0].reader()
        reader.visit(5) { unit, value in if unit == 37 { score = value } }
        reader = plain.routings[0].reader()
        reader.visit(5) { unit, value in if unit == 37 { before = value } }
        #expect(abs(score - before - 2.5) < 1e-5, "readers of routing see it")
        #expect(forced.routings[0].left.value.shape == [6, 2, 10])
    }

    /// Alone, beside others, in pieces, prepared, masked and on the reference device: the same.
    @Test(arguments: Family.allCases)
    func allPathsAgree(family: Family) throws {
        let model = try model(family)
        let own = steering(family, .init([1...4]))
        let mask = UnitMask.random(share: 0.2, of: model.units, seed: 2)
        let device = ReferenceBackend()
        let moved = try model.moved(to: device)
        for mask in [nil, mask] {
            let expected = try logits(moved, [steered(ids, own, mask: mask)], on: device).floats().map(
                Double.init)
            let alone = try logits(model, [steered(ids, own, mask: mask)])
            #expect(relativeError(alone.floats().map(Double.init), expected) < 1e-4)
            let prepared = try model.prepared(on: CPUBackend())
            #expect(
                relativeError(try logits(prepared, [steered(ids, own, mask: mask)]), alone) < 1e-5)
            let plain = try logits(model, [steered(ids, nil, mask: mask)])
            #expect(relativeError(plain, alone) > 1e-3, "steering changes something")
            // In a batch, and one token at a time over a cache: positions are those of the sequence.
            let other: [Int32] = [9, 9, 1]
            let batch = try logits(model, [steered(other, nil), steered(ids, own, mask: mask)])
            #expect(relativeError(batch.slice(3..<9), alone) < 1e-5)
            var cache: KVCache? = KVCache(configuration: model.configuration)
            var rows: [Float] = []
            for id in ids {
                var sequence = ForwardSequence([id], cache: cache, mask: mask)
                sequence.steering = own
                let output = try model.forward(ForwardInput([sequence]))
                cache = output.caches[0]
                rows += try model.logits(output.hidden.value).floats()
            }
            #expect(relativeError(Tensor(rows, shape: alone.shape), alone) < 1e-4)
        }
    }

    /// A steered request changes no bit of its neighbours.
    @Test(arguments: Family.allCases, [false, true])
    func neighboursKeepTheirBits(family: Family, isPrepared: Bool) throws {
        let backend = CPUBackend(isBatchInvariant: true)
        let model = isPrepared ? try model(family).prepared(on: backend) : try model(family)
        let other: [Int32] = [9, 9, 1, 30]
        let alone = try logits(model, [ForwardSequence(other)], on: backend).floats()
        let beside = try logits(model, [steered(ids, steering(family)), ForwardSequence(other)], on: backend)
        #expect(beside.slice(6..<10).floats() == alone)
        let own = try logits(model, [steered(ids, steering(family))], on: backend).floats()
        #expect(beside.slice(0..<6).floats() == own)
        if family == .dense { return }
        var headless = Steering()
        headless.replacements = [.init(point: HookPoint(.g1, layer: 0), head: 1, content: .zero)]
        let pair = try logits(model, [steered(ids, headless), ForwardSequence(other)], on: backend)
        #expect(pair.slice(6..<10).floats() == alone)
    }

    @Test(arguments: Family.allCases)
    func gradientsPass(family: Family) throws {
        let model = try model(family)
        let device = ReferenceBackend()
        let moved = try model.moved(to: device)
        func gradient(_ model: MonetLanguageModel, _ backend: any Backend) throws -> [Double] {
            let variables = ParameterVariables()
            let output = try model.forward(
                ForwardInput([steered(ids, steering(family))]), variables: variables, on: backend)
            _ = try model.crossEntropy(output, targets: ids.dropFirst() + [-1])
            try output.backward()
            return try ["model.embed_tokens.weight", "model.layers.0.self_attn.v_proj.weight"].flatMap {
                variables.gradient(of: try model.parameters($0))?.floats().map(Double.init) ?? []
            }
        }
        let expected = try gradient(moved, device)
        #expect(expected.contains { $0 != 0 })
        #expect(relativeError(try gradient(model, CPUBackend()), expected) < 1e-4)
    }

    @Test func badInput() throws {
        let model = try model(.vertical)
        func check(_ change: (inout Steering) -> Void) throws {
            var steering = Steering()
            change(&steering)
            try model.check(steering)
        }
        for unit in [
            Steering.Unit(group: 2, index: 0, score: 1), .init(group: 0, index: 100, score: 1),
            .init(group: 0, index: 0, score: 0), .init(group: 0, index: 0, score: .nan),
        ] {
            #expect(throws: ModelError.self) { try check { $0.units = [unit] } }
        }
        for (point, width) in [
            (HookPoint(.residPost, layer: 0), 35), (HookPoint(.residPost, layer: 3), 36),
            (HookPoint(.pattern, layer: 0), 36), (HookPoint(.g1, layer: 0), 20),
        ] {
            #expect(throws: ModelError.self) {
                try check {
                    $0.directions = [.init(point: point, vector: [Float](repeating: 1, count: width))]
                }
            }
        }
        #expect(throws: ModelError.self) {
            var steering = Steering()
            steering.units = [.init(group: 9, index: 0, score: 1)]
            _ = try logits(model, [steered(ids, steering)])
        }
    }
}
