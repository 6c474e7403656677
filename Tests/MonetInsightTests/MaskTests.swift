import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// Masks as files and sets, and what chooses them.
@Suite struct MaskTests {
    @Test func filesKeepMaskAndOrigin() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let c = model.configuration
            var mask = UnitMask(model.units)
            mask.remove([0, 99, 7], group: 1)
            mask.set([(index: 5, strength: 0.5), (index: 6, strength: 2)], group: 0)
            let file = MaskFile(mask: mask, model: model.fingerprint, recipe: ["kind": "list"])
            try file.write(to: folder + "/m.mask")
            let read = try MaskFile(contentsOfFile: folder + "/m.mask", configuration: c)
            #expect(read == file)
            #expect(read.mask.count == 5 && read.mask.count(group: 0) == 2)
            let stored = try SafetensorsFile(path: folder + "/m.mask")
            #expect(try stored.tensor("removed.1").integers() == [0, 7, 99])
            #expect(stored.metadata["counts"] == #"{"0":2, "1":3}"#)
            var other = c
            other.experts?.perSide = 11
            #expect(throws: ModelError.self) {
                try MaskFile(contentsOfFile: folder + "/m.mask", configuration: other)
            }
            var dense = c
            dense.feedForward = Family.dense.small
            #expect(throws: ModelError.self) {
                try MaskFile(contentsOfFile: folder + "/m.mask", configuration: dense)
            }
        }
    }

    @Test func fingerprintsTellModelsApartAndNotTheirFormats() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            try FileManager.default.createDirectory(
                atPath: folder + "/bf16", withIntermediateDirectories: true)
            try FileManager.default.createDirectory(
                atPath: folder + "/int8", withIntermediateDirectories: true)
            try Checkpoint.write(model, dtype: .bfloat16, to: folder + "/bf16")
            try Checkpoint.write(model, dtype: .bfloat16, quantization: .int8, to: folder + "/int8")
            for name in ["bf16", "int8"] {
                for purpose in [LoadPurpose.inference, .conversion] {
                    let loaded = try MonetLanguageModel.load(folder + "/" + name, for: purpose)
                    #expect(loaded.fingerprint == model.fingerprint, "\(name)")
                }
            }
            #expect(try ExpertIndexTests.model(.horizontal).fingerprint != model.fingerprint)
            #expect(model.fingerprint.count == 32)
        }
    }

    @Test func setsAndStrengthsCombine() {
        var a = UnitMask(unitsPerGroup: 16)
        var b = UnitMask(unitsPerGroup: 16)
        a.remove([1, 2], group: 0)
        a.set([(index: 3, strength: 0.5)], group: 0)
        b.set([(index: 3, strength: 0.5), (index: 2, strength: 3)], group: 0)
        b.remove([9], group: 1)
        let union = a.union(b)
        #expect(union.entries(group: 0).map(\.index) == [1, 2, 3])
        #expect(union.entries(group: 0).map(\.strength) == [0, 0, 0.25])
        #expect(union.count == 4)
        #expect(a.intersection(b).entries(group: 0).map(\.index) == [2, 3])
        #expect(a.subtracting(b).entries(group: 0).map(\.index) == [1])
        #expect(a.applied(strength: 1).count == 0)
        #expect(a.applied(strength: 0).entries(group: 0).map(\.strength) == [0, 0, 0.5])
        #expect(a.applied(strength: 2).entries(group: 0).map(\.strength) == [2, 2, 1.5])
        #expect(a.randomOfEqualSize(seed: 1).count(group: 0) == 3)
        #expect(UnitMask(unitsPerGroup: 16).union(b).count == b.count)
    }

    /// A model's logits with units removed, against the sum over all pairs (or neurons) in double precision.
    @Test(
        arguments: Family.allCases, [0.0, 0.02, 0.5, 1.0])
    func maskedModelsAgreeWithTheSumOverPairs(kind: Family, share: Double) throws {
        let model = try ExpertIndexTests.model(kind)
        let c = model.configuration
        var mask = UnitMask.random(share: share, of: model.units, seed: 5)
        if share > 0, share < 1 {
            mask.set([(index: 17, strength: 0.3), (index: 18, strength: 2.5)], group: 0)
        }
        var strengths: [Int: [Int: Double]] = [:]
        for group in mask.groups {
            for entry in mask.entries(group: group) {
                strengths[group, default: [:]][entry.index] = Double(entry.strength)
            }
        }
        let tokens: [Int32] = [1, 5, 9, 33, 66, 2, 8, 8, 40, 3, 4, 5, 6]
        let expected = ReferenceModel(model)([tokens], strengths: strengths).logits
        for model in [model, try model.prepared(on: CPUBackend())] {
            for count in [tokens.count, 1] {
                var cache = KVCache(configuration: c)
                var logits: [Float] = []
                for start in stride(from: 0, to: tokens.count, by: count) {
                    let piece = Array(tokens[start..<min(tokens.count, start + count)])
                    let output = try model.forward(
                        ForwardInput([ForwardSequence(piece, cache: cache, mask: mask)]))
                    cache = output.caches[0]
                    logits += try model.logits(output.hidden.value).floats()
                }
                #expect(relativeError(logits.map(Double.init), expected.values) < 1e-5)
            }
        }
    }

    /// Derivatives by strengths, as differences of the loss in double precision; the backward pass is
    /// float32, 1e-4 of the largest effect.
    @Test(arguments: Family.allCases)
    func effectsAreTheDerivativesOfTheLoss(kind: Family) throws {
        let model = try ExpertIndexTests.model(kind)
        let texts: [[Int32]] = [[1, 5, 9, 33, 66, 2, 8], [3, 4]]
        let effects = try UnitEffects(
            of: LabelledDocuments(tokens: texts, origin: "test"), model: model, backend: CPUBackend())
        #expect(effects.tokens == 7)
        let reference = ReferenceModel(model)
        func loss(_ strengths: [Int: [Int: Double]]) -> Double {
            var sum = 0.0
            for text in texts {
                let logits = reference([text], strengths: strengths).logits
                for position in 0..<(text.count - 1) {
                    let line = (0..<logits.columns).map { logits[position, $0] }
                    let largest = line.max() ?? 0
                    let total = line.reduce(0) { $0 + exp($1 - largest) }
                    sum += largest + log(total) - line[Int(text[position + 1])]
                }
            }
            return sum / 7
        }
        #expect(abs(effects.loss - loss([:])) < 1e-5)
        let largest = effects.values.flatMap { $0 }.map(abs).max() ?? 0
        #expect(largest > 1e-4)
        for group in effects.values.indices {
            let strongest = effects.values[group].indices.sorted {
                abs(effects.values[group][$0]) > abs(effects.values[group][$1])
            }
            for index in strongest.prefix(4) + strongest.suffix(1) {
                let step = 1e-4
                let slope =
                    (loss([group: [index: 1 + step]]) - loss([group: [index: 1 - step]])) / (2 * step)
                #expect(abs(effects.values[group][index] + slope) < 1e-4 * largest, "\(group)/\(index)")
            }
        }
        let raising = effects.strongest(3)
        #expect(raising.count == 3)
        #expect(raising.allSatisfy { effects.values[$0.group][$0.index] > 0 })
        #expect(effects.strongest(3, raising: false).allSatisfy { effects.values[$0.group][$0.index] < 0 })
    }

    /// Against Pearson's formula on whole lists; float32 scores, 1e-4.
    @Test(arguments: ScoreCorrelation.Level.allCases)
    func correlationsAgreeWithTheFormula(level: ScoreCorrelation.Level) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let c = model.configuration
            let e = try #require(c.experts)
            let documents = try ExpertIndexTests.documents(c.vocabularySize, in: folder)
            let found = try ScoreCorrelation(
                of: documents, level: level, model: model, backend: CPUBackend())
            let reference = ReferenceModel(model)
            var scores = Array(
                repeating: Array(repeating: [Double](), count: e.perSide * e.perSide),
                count: c.routerLayers.count)
            var numbers: [Double] = []
            for document in 0..<documents.count {
                let tokens = documents.tokens(document)
                let number = try #require(documents.number(document, token: 0))
                let routings = reference([tokens]).routings
                numbers += level == .token ? tokens.map { _ in number } : [number]
                for (group, layer) in c.routerLayers.enumerated() {
                    let (left, right) = try #require(routings[layer])
                    for index in scores[group].indices {
                        let (i, j) = (index / e.perSide, index % e.perSide)
                        let own = tokens.indices.map { token in
                            (0..<e.heads).reduce(0.0) { sum, head in
                                let row = (token * e.heads + head) * e.perSide
                                return sum + left.values[row + i] * right.values[row + j]
                            }
                        }
                        scores[group][index] +=
                            level == .token ? own : [own.reduce(0, +) / Double(own.count)]
                    }
                }
            }
            #expect(found.count == numbers.count)
            for group in scores.indices {
                for index in scores[group].indices {
                    let expected = pearson(scores[group][index], numbers)
                    #expect(abs(found.values[group][index] - expected) < 1e-4, "\(group)/\(index)")
                }
            }
            let chosen = found.units(above: 0.1)
            #expect(!chosen.isEmpty && chosen.allSatisfy { found.values[$0.group][$0.index] > 0.1 })
        }
    }

    private func pearson(_ x: [Double], _ y: [Double]) -> Double {
        let n = Double(x.count)
        let (mx, my) = (x.reduce(0, +) / n, y.reduce(0, +) / n)
        let xy = zip(x, y).reduce(0) { $0 + ($1.0 - mx) * ($1.1 - my) }
        let xx = x.reduce(0) { $0 + ($1 - mx) * ($1 - mx) }
        let yy = y.reduce(0) { $0 + ($1 - my) * ($1 - my) }
        return xx > 0 && yy > 0 ? xy / (xx * yy).squareRoot() : 0
    }

    @Test func numbersMustFitTheDocuments() throws {
        try withTemporaryFolder { folder in
            func documents(_ line: String) throws -> LabelledDocuments {
                try AtomicFile.write(line, to: folder + "/n.jsonl")
                return try LabelledDocuments(
                    sources: [.init(path: folder + "/n.jsonl")],
                    tokenizer: .init(path: Fixture.path("text/trained.model")), numberKey: "v")
            }
            #expect(throws: InsightError.self) { try documents(#"{"text": "the sea"}"#) }
            #expect(throws: InsightError.self) { try documents(#"{"text": "the sea", "v": [1]}"#) }
            #expect(throws: InsightError.self) { try documents(#"{"text": "the sea", "v": "much"}"#) }
            let numbered = try documents(#"{"text": "the sea", "v": 0.5}"#)
            #expect(numbered.number(0, token: 1) == 0.5)
        }
    }

    @Test func neuronsOfADenseModelAreCountedByLabel() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model(.dense)
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            let statistics = try LabelStatistics(of: documents, model: model, backend: CPUBackend())
            #expect(statistics.labels == ["sea", "law", "stone"] && statistics.units.unitsPerGroup == 50)
            for label in 0..<3 {
                let chosen = statistics.specialists(of: label, ratio: 1.05)
                for layer in chosen.groups {
                    for (unit, _) in chosen.entries(group: layer) {
                        let own = Array(statistics.means[layer][(unit * 3)..<(unit * 3 + 3)])
                        let others = own.indices.filter { $0 != label }.map { own[$0] }.max() ?? 0
                        #expect(own[label] >= 1.05 * others)
                    }
                }
                #expect(statistics.strongest(of: label, count: 3).count <= 3)
            }
            let unlabelled = LabelledDocuments(tokens: [[1, 2]], origin: "x")
            #expect(throws: InsightError.noLabels(origin: "x")) {
                try LabelStatistics(of: unlabelled, model: model, backend: CPUBackend())
            }
        }
    }
}
