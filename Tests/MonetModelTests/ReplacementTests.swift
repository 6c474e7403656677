import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Replaced values at hook points: against a decoder in double precision whose hooks write the same, and on every path.
@Suite struct ReplacementTests {
    private let ids: [Int32] = [3, 41, 7, 22, 60, 12]

    private func sequence(_ ids: [Int32], _ replacements: [Steering.Replacement]) -> ForwardSequence {
        var sequence = ForwardSequence(ids)
        var steering = Steering()
        steering.replacements = replacements
        sequence.steering = steering
        return sequence
    }

    private func logits(
        _ model: MonetLanguageModel, _ input: ForwardInput, _ backend: any Backend = CPUBackend()
    )
        throws -> Tensor
    {
        try model.logits(try model.forward(input, on: backend).hidden.value, on: backend)
    }

    /// What each replacement means, written out for a hook.
    private func written(_ replacement: Steering.Replacement, _ value: Tensor, keys: Int) -> [Float] {
        var values = value.floats()
        let (rows, width) = (value.shape[0], value.count / value.shape[0])
        let heads = value.shape.count == 3 ? value.shape[1] : 1
        for row in 0..<rows where replacement.positions.contains(row) {
            for column in 0..<width {
                if let head = replacement.head, column / (width / heads) != head { continue }
                switch replacement.content {
                case .zero: values[row * width + column] = 0
                case .row(let own): values[row * width + column] = own[column]
                case .rows(let own):
                    guard own.indices.contains(row) else { continue }
                    let wide = own[row].count / heads
                    let (head, place) = (column / (width / heads), column % (width / heads))
                    values[row * width + column] = place < wide ? own[row][head * wide + place] : 0
                }
            }
        }
        return values
    }

    private func replacements(_ family: Family) -> [Steering.Replacement] {
        let row = (0..<36).map { Float($0 % 7) / 3 - 1 }
        let rows = (0..<4).map { place in (0..<36).map { Float(($0 + place) % 5) - 2 } }
        var all: [Steering.Replacement] = [
            .init(point: HookPoint(.residPre, layer: 1), content: .row(row), positions: .init([2...3])),
            .init(point: HookPoint(.attnOut, layer: 0), content: .zero),
            .init(point: HookPoint(.mlpOut, layer: 1), content: .rows(rows)),
            .init(point: HookPoint(.z, layer: 1), head: 1, content: .zero),
            .init(point: HookPoint(.k, layer: 2), head: 2, content: .row(row), positions: .init([0...0])),
            .init(point: HookPoint(.residPost, layer: 2), content: .rows(rows), positions: .init([1...9])),
            .init(point: HookPoint(.pattern, layer: 1), head: 0, content: .zero, positions: .init([3...3])),
        ]
        if family != .dense {
            let routed = (0..<20).map { Float($0 % 4 == 0 ? 0.4 : 0) }
            all += [
                .init(point: HookPoint(.g1, layer: 0), head: 1, content: .zero),
                .init(point: HookPoint(.g2, layer: 2), content: .row(routed), positions: .init([2...9])),
            ]
        }
        return all
    }

    @Test(arguments: Family.allCases)
    func everyPointAgreesWithDoublePrecision(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 8)
        let device = ReferenceBackend()
        let moved = try model.moved(to: device)
        let plain = try logits(model, ForwardInput([ids]))
        let all = replacements(family)
        for chosen in all.map({ [$0] }) + [all] {
            var reference = ForwardInput([ids])
            for replacement in chosen {
                reference.hooks.write(replacement.point) { value, tape in
                    let new = written(replacement, value.value, keys: ids.count)
                    return Variable(try tape.backend.tensor(Tensor(new, shape: value.value.shape)))
                }
            }
            let expected = try logits(moved, reference, device).floats().map(Double.init)
            let found = try logits(model, ForwardInput([sequence(ids, chosen)]))
            #expect(relativeError(found.floats().map(Double.init), expected) < 1e-4, "\(chosen.map(\.point))")
            #expect(relativeError(plain, found) > 1e-4, "\(chosen.map(\.point)) changes something")
            let prepared = try model.prepared(on: CPUBackend())
            #expect(relativeError(try logits(prepared, ForwardInput([sequence(ids, chosen)])), found) < 1e-5)
            let other: [Int32] = [9, 9, 1]
            let batch = try logits(model, ForwardInput([ForwardSequence(other), sequence(ids, chosen)]))
            #expect(relativeError(batch.slice(3..<9), found) < 1e-5)
            #expect(relativeError(batch.slice(0..<3), try logits(model, ForwardInput([other]))) < 1e-5)
            // One token at a time over a cache.
            var cache: KVCache? = KVCache(configuration: model.configuration)
            var rows: [Float] = []
            for id in ids {
                var next = sequence([id], chosen)
                next.cache = cache
                let output = try model.forward(ForwardInput([next]))
                cache = output.caches[0]
                rows += try model.logits(output.hidden.value).floats()
            }
            #expect(relativeError(Tensor(rows, shape: found.shape), found) < 1e-4, "\(chosen.map(\.point))")
        }
    }

    /// What a pass itself has at a hook point changes nothing, bit for bit.
    @Test(arguments: Family.allCases)
    func ownValuesChangeNothing(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 8)
        for point in model.hookPoints where model.configuration.layerCount > point.layer {
            var input = ForwardInput([ids])
            input.hooks.observed = [point]
            let output = try model.forward(input)
            let values = try output.observed(point.kind, point.layer).floats()
            let width = values.count / ids.count
            let rows = ids.indices.map { Array(values[($0 * width)..<(($0 + 1) * width)]) }
            let own = sequence(ids, [.init(point: point, content: .rows(rows))])
            let expected = try model.logits(output.hidden.value)
            #expect(try logits(model, ForwardInput([own])).floats() == expected.floats(), "\(point)")
        }
    }

    /// Nothing flows back from what was replaced, and everything from the rest.
    @Test(arguments: Family.allCases)
    func gradients(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 8)
        func gradient(
            _ model: MonetLanguageModel, _ replacements: [Steering.Replacement], _ targets: [Int32],
            _ backend: any Backend
        ) throws -> [Double] {
            let variables = ParameterVariables()
            let output = try model.forward(
                ForwardInput([sequence(ids, replacements)]), variables: variables, on: backend)
            _ = try model.crossEntropy(output, targets: targets)
            try output.backward()
            return try ["model.embed_tokens.weight", "model.layers.0.self_attn.v_proj.weight"].flatMap {
                name in
                let parameter = try model.parameters(name)
                return variables.gradient(of: parameter)?.floats().map(Double.init)
                    ?? [Double](repeating: 0, count: parameter.tensor.count)
            }
        }
        let targets: [Int32] = ids.dropFirst() + [-1]
        let top = HookPoint(.residPost, layer: 2)
        let without = try gradient(
            model, [.init(point: top, content: .zero, positions: .init([1...1, 3...3]))], targets,
            CPUBackend())
        var fewer = targets
        (fewer[1], fewer[3]) = (-1, -1)
        let expected = try gradient(model, [], fewer, CPUBackend())
        #expect(relativeError(without, expected) < 1e-5)
        #expect(
            try gradient(model, [.init(point: top, content: .zero)], targets, CPUBackend()).allSatisfy {
                $0 == 0
            })
        let device = ReferenceBackend()
        let moved = try model.moved(to: device)
        for replacement in replacements(family) {
            let expected = try gradient(moved, [replacement], targets, device)
            #expect(expected.contains { $0 != 0 })
            #expect(
                relativeError(try gradient(model, [replacement], targets, CPUBackend()), expected) < 1e-4,
                "\(replacement.point)")
        }
    }

    @Test func badInput() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 8)
        for replacement in [
            Steering.Replacement(point: HookPoint(.residPost, layer: 3), content: .zero),
            .init(point: HookPoint(.residPost, layer: 0), head: 0, content: .zero),
            .init(point: HookPoint(.z, layer: 0), head: 3, content: .zero),
            .init(point: HookPoint(.pattern, layer: 0), head: 3, content: .zero),
            .init(point: HookPoint(.residPost, layer: 0), content: .row([1, 2])),
            .init(point: HookPoint(.pattern, layer: 0), content: .row([1, 2, 3])),
            .init(point: HookPoint(.g1, layer: 0), content: .row([Float](repeating: 0, count: 10))),
            .init(
                point: HookPoint(.residPost, layer: 0), content: .rows([[Float](repeating: .nan, count: 36)])),
        ] {
            var steering = Steering()
            steering.replacements = [replacement]
            #expect(throws: ModelError.self, "\(replacement)") { try model.check(steering) }
        }
    }

    /// Steering as requests and lines of prompts give it.
    @Test func readingJSON() throws {
        func read(_ units: String?, _ directions: String?, files: Bool = false) throws -> Steering {
            try Steering(
                units: units.map { try JSONValue(parsing: $0, source: "units") },
                directions: directions.map { try JSONValue(parsing: $0, source: "directions") },
                readsFiles: files)
        }
        let steering = try read(
            #"{"1/22": 3, "0/4": {"score": 0.5, "positions": "0-1,4-"}}"#,
            #"[{"hook": "blocks.1.hook_resid_post", "vector": [1, -0.5], "scale": 2, "positions": 3}]"#)
        #expect(
            steering.units == [
                .init(group: 1, index: 22, score: 3),
                .init(group: 0, index: 4, score: 0.5, positions: .init([0...1, 4...(Int.max - 1)])),
            ])
        #expect(
            steering.directions == [
                .init(
                    point: HookPoint(.residPost, layer: 1), vector: [1, -0.5], scale: 2,
                    positions: .init([3...3]))
            ])
        #expect(try read(nil, nil).isEmpty && read("null", "null").isEmpty)
        let replaced = try Steering(
            replacements: JSONValue(
                parsing:
                    #"[{"hook": "blocks.0.attn.hook_z", "head": 2}, {"hook": "blocks.1.hook_mlp_out", "vector": [1]}]"#,
                source: "replace"))
        #expect(
            replaced.replacements == [
                .init(point: HookPoint(.z, layer: 0), head: 2, content: .zero),
                .init(point: HookPoint(.mlpOut, layer: 1), content: .row([1])),
            ])
        #expect(throws: ModelError.self) {
            try Steering(replacements: [["hook": "blocks.0.attn.hook_z", "head": "x"]])
        }
        for (units, directions) in [
            ("[]", nil), (#"{"1": 3}"#, nil), (#"{"1/2": "x"}"#, nil), (#"{"1/2": {"positions": "3"}}"#, nil),
            (#"{"1/2": {"score": 1, "positions": "4-2"}}"#, nil),
            (#"{"1/2": {"score": 1, "where": "4"}}"#, nil),
            (nil, "{}"), (nil, #"[{"hook": "x", "vector": []}]"#), (nil, #"[{"hook": "blocks.0.hook_z"}]"#),
            (nil, #"[{"hook": "blocks.0.hook_z", "vector": ["a"]}]"#),
            (nil, #"[{"hook": "blocks.0.hook_z", "vector": [1], "scale": "x"}]"#),
            (nil, #"[{"hook": "blocks.0.hook_z", "file": "/etc/passwd"}]"#),
        ] as [(String?, String?)] {
            #expect(throws: ModelError.self, "\(units ?? "") \(directions ?? "")") {
                try read(units, directions)
            }
        }
        #expect(throws: FileError.self) {
            try read(nil, #"[{"hook": "blocks.0.hook_z", "file": "/nowhere.safetensors"}]"#, files: true)
        }
    }
}
