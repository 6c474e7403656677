import MonetCompute
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// Activation patching against runs in double precision, patched one at a time, and against what must hold of any model.
@Suite struct PatchingTests {
    private let clean: [Int32] = [3, 41, 7, 22, 60]
    private let corrupted: [Int32] = [3, 50, 7, 9, 60]
    private let target = AttributionTarget([.init(token: 13, weight: 1), .init(token: 20, weight: -1)])

    private func patching(_ model: MonetLanguageModel) throws -> ActivationPatching {
        try ActivationPatching(clean: clean, corrupted: corrupted, target: target, model: model)
    }

    @Test(arguments: Family.allCases, ActivationPatching.Places.allCases)
    func tablesAgreeWithSinglePatches(family: Family, places: ActivationPatching.Places) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 6)
        let table = try patching(model).run(over: places, batch: 4)
        let device = ReferenceBackend()
        let moved = try model.moved(to: device)
        let kind: HookPoint.Kind =
            switch places {
            case .residual: .residPre
            case .heads: .z
            case .experts: .mlpOut
            case .attention: .attnOut
            }
        func metric(_ ids: [Int32], _ change: ((inout ForwardInput) -> Void)? = nil) throws -> (
            Double, ForwardOutput
        ) {
            var input = ForwardInput([ids])
            input.hooks.observed = Set((0..<3).map { HookPoint(kind, layer: $0) })
            change?(&input)
            let output = try moved.forward(input, on: device)
            let logits = try moved.logits(output.hidden.value, on: device).floats()
            let last = 67 * (ids.count - 1)
            return (Double(logits[last + 13]) - Double(logits[last + 20]), output)
        }
        let (high, observed) = try metric(clean)
        let (low, _) = try metric(corrupted)
        #expect(abs(table.clean - high) < 1e-4 && abs(table.corrupted - low) < 1e-4)
        for layer in 0..<3 {
            #expect(table.shares[layer].count == (places == .heads ? 3 : 5))
            for (column, share) in table.shares[layer].enumerated() {
                let source = try observed.observed(kind, layer).floats()
                let (patched, _) = try metric(corrupted) { input in
                    input.hooks.write(HookPoint(kind, layer: layer)) { value, tape in
                        var values = value.value.floats()
                        for place in values.indices {
                            let isPatched =
                                places == .heads ? place % 36 / 12 == column : place / 36 == column
                            if isPatched { values[place] = source[place] }
                        }
                        return Variable(try tape.backend.tensor(Tensor(values, shape: value.value.shape)))
                    }
                }
                #expect(abs(share - (patched - low) / (high - low)) < 1e-3, "layer \(layer), \(column)")
            }
        }
        if places == .residual {
            // Equal tokens have equal embeddings, and the first position cannot hear of later ones; sums in a batch
            // are rounded in another order than alone.
            #expect(abs(table.shares[0][2]) < 1e-5 && abs(table.shares[0][4]) < 1e-5)
            #expect(table.shares.allSatisfy { abs($0[0]) < 1e-5 })
        }
    }

    @Test func badInput() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 6)
        func patching(_ clean: [Int32], _ corrupted: [Int32], _ token: Int32 = 13) throws
            -> ActivationPatching
        {
            try ActivationPatching(
                clean: clean, corrupted: corrupted, target: AttributionTarget(token: token), model: model)
        }
        #expect(throws: InsightError.self) { try patching([1, 2], [1]) }
        #expect(throws: InsightError.self) { try patching([], []) }
        #expect(throws: InsightError.self) { try patching([1], [2], 67) }
        let long = [Int32](repeating: 1, count: 65)
        #expect(throws: ModelError.self) { try patching(long, long) }
        #expect(throws: InsightError.self) { try patching([1, 2], [1, 2]).run(over: .residual) }
        #expect(throws: CancellationError.self) {
            try patching([1, 2], [2, 2]).run(over: .heads) { _ in false }
        }
    }
}
