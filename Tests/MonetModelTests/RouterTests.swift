import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// Routers against the formulas of section 3 in double precision, with running and with batch statistics.
@Suite struct RouterTests {
    private let ids: [Int32] = [1, 5, 9, 33, 66, 2, 8]

    private func model(_ family: Family = .vertical) throws -> MonetLanguageModel {
        var c = smallConfiguration(family)
        (c.attentionHeads, c.keyValueHeads, c.headWidth) = (4, 2, 6)
        return try scrambledModel(c, seed: 21)
    }

    /// The routers' statistics come out of a pass; only the caller moves the model's.
    @Test(arguments: Device.allCases)
    func aPassChangesNothing(device: Device) throws {
        let (model, backend) = (try model().moved(to: device.backend), device.backend)
        let before = model.parameters.all.map { $0.tensor.floats() }
        var input = ForwardInput([ids])
        input.statistics = .batch
        let output = try model.forward(input, on: backend)
        #expect(model.parameters.all.map { $0.tensor.floats() } == before)
        #expect(output.routerStatistics.map(\.layer) == [0, 2])
        #expect(output.routerStatistics.allSatisfy { $0.count == ids.count * 10 && $0.sides.count == 2 })
        try model.updateRouters(with: output.routerStatistics, momentum: 0.25)
        for batch in output.routerStatistics {
            for (place, side) in batch.sides.enumerated() {
                for (name, found, factor) in [
                    ("running_mean", side.mean, 1.0), ("running_var", side.variance, 70.0 / 69),
                ] {
                    let full = "model.layers.\(batch.layer).router.norm\(place + 1).\(name)"
                    let index = try #require(model.parameters.all.firstIndex { $0.name == full })
                    let expected = zip(before[index], found.floats()).map {
                        0.75 * Double($0) + 0.25 * factor * Double($1)
                    }
                    let now = model.parameters.all[index].tensor.floats().map(Double.init)
                    #expect(relativeError(now, expected) < 1e-6, "\(full)")
                }
            }
        }
    }

    /// Probabilities are those of the reference, in the form for training and in that for inference.
    @Test(arguments: [Family.horizontal, .vertical], Device.allCases)
    func probabilitiesAreTheReferences(family: Family, device: Device) throws {
        let model = try model(family)
        let reference = ReferenceModel(model)([ids]).routings
        #expect(reference.keys.sorted() == [0, 2])
        let backend = device.backend
        for form in [try model.moved(to: backend), try model.prepared(on: backend)] {
            let routings = try form.forward(ForwardInput([ids]), on: backend).routings
            #expect(routings.map(\.layer) == [0, 2])
            for routing in routings {
                let expected = try #require(reference[routing.layer])
                for (found, side) in [(routing.left, expected.left), (routing.right, expected.right)] {
                    let values = found.value.floats()
                    #expect(relativeError(values.map(Double.init), side.values) < 1e-5)
                    // Zeros outside the selection are exact.
                    #expect(zip(values, side.values).allSatisfy { ($0 == 0) == ($1 == 0) })
                }
            }
        }
    }

    /// Batch statistics are the mean and the biased variance of a head's logits over tokens and experts.
    @Test(arguments: Device.allCases)
    func batchStatistics(device: Device) throws {
        let backend = device.backend
        let model = try model().moved(to: backend)
        let point = HookPoint(.mlpIn, layer: 2)
        var input = ForwardInput([ids])
        input.statistics = .batch
        input.hooks.observed = [point]
        let output = try model.forward(input, on: backend)
        let h = try #require(output.observations[point]?.value)
        let rows = h.floats().map(Double.init)
        let width = h.columnCount
        for (place, side) in try #require(output.routerStatistics.last).sides.enumerated() {
            let weight = try model.parameters("model.layers.2.router.w\(place + 1).weight").tensor.floats()
            for head in 0..<2 {
                let logits = (0..<ids.count).flatMap { token in
                    (0..<10).map { expert in
                        (0..<width).reduce(0.0) {
                            $0 + rows[token * width + $1]
                                * Double(weight[((head * 10 + expert) * width) + $1])
                        }
                    }
                }
                let mean = logits.reduce(0, +) / Double(logits.count)
                let variance = logits.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(logits.count)
                #expect(abs(Double(side.mean.floats()[head]) - mean) < 1e-5)
                #expect(abs(Double(side.variance.floats()[head]) - variance) < 1e-5 * variance)
            }
        }
    }
}
