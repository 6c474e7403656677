import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Masks as files and sets, and what they do to a model.
@Suite struct UnitMaskTests {
    private func small(_ family: Family = .vertical) throws -> MonetLanguageModel {
        try scrambledModel(smallConfiguration(family), seed: 21)
    }

    @Test func filesKeepMaskAndOrigin() throws {
        try withTemporaryFolder { folder in
            let model = try small()
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
            let model = try small()
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
            #expect(try small(.horizontal).fingerprint != model.fingerprint)
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
        let model = try small(kind)
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
}
