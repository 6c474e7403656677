import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Checkpoints with masks made permanent against the masked model that they came from.
@Suite struct EditedCheckpointTests {
    private let tokens: [Int32] = [1, 5, 9, 33, 66, 2, 8, 8, 40, 3]

    private func logits(_ model: MonetLanguageModel, mask: UnitMask? = nil) throws -> Tensor {
        try model.logits(model.forward(ForwardInput([tokens], mask: mask)).hidden.value)
    }

    private func edited(
        _ model: MonetLanguageModel, _ mask: UnitMask, in folder: String, name: String = "edited"
    ) throws -> Checkpoint.EditResult {
        try AtomicFile.createFolder(folder + "/" + name)
        return try Checkpoint.writeEdited(model, mask: mask, dtype: .float32, to: folder + "/" + name)
    }

    /// The halves j of group g as all experts (i, j).
    private func columns(_ halves: [Int], group: Int, of experts: Int) -> UnitMask {
        var mask = UnitMask(unitsPerGroup: experts * experts)
        mask.remove(halves.flatMap { j in (0..<experts).map { $0 * experts + j } }, group: group)
        return mask
    }

    @Test func wholeColumnsOfHorizontalExpertsAreBakedIn() throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(.horizontal), seed: 51)
            let mask = columns([0, 3, 9], group: 0, of: 10).union(columns([5], group: 1, of: 10))
            guard case .bakedIn(parts: 4, _) = try edited(model, mask, in: folder) else {
                Issue.record("the mask is not baked in")
                return
            }
            let read = try MonetLanguageModel.load(folder + "/edited")
            #expect(read.ownMask == nil && read.configuration.expertMaskFile == nil)
            #expect(read.fingerprint == model.fingerprint)
            // The same terms are zero in both; sums differ in their order only.
            #expect(relativeError(try logits(read), try logits(model, mask: mask)) < 1e-6)
            #expect(relativeError(try logits(read), try logits(model)) > 1e-3)
            // Only V and b of the layers of these groups changed, and only there.
            let (before, after) = (
                try Checkpoint.tensors(folder + "/edited"), model.parameters
            )
            for parameter in after.all
            where !parameter.name.contains(".moe.v") && !parameter.name.hasSuffix(".moe.b") {
                #expect(try before.tensor(parameter.name).floats() == parameter.tensor.floats())
            }
        }
    }

    @Test(arguments: [Family.vertical, .horizontal])
    func otherMasksAreCarried(kind: Family) throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(kind), seed: 52)
            var mask = columns([2], group: 0, of: 10)
            mask.set([(index: 7, strength: 0.5), (index: 44, strength: 2)], group: 1)
            #expect(try edited(model, mask, in: folder) == .carried)
            let files = try FileManager.default.contentsOfDirectory(atPath: folder + "/edited")
            #expect(files.contains("expert_mask.safetensors") && files.contains("modeling_monet.py"))
            let config = try JSONValue(contentsOfFile: folder + "/edited/config.json")
            #expect(config["model_type"]?.stringValue == "monet_masked")
            #expect(
                config["auto_map"]?["AutoModelForCausalLM"]?.stringValue
                    == "modeling_monet.MaskedMonetForCausalLM")
            let read = try MonetLanguageModel.load(folder + "/edited")
            #expect(read.ownMask == mask)
            let expected = try logits(model, mask: mask)
            #expect(relativeError(try logits(read), expected) < 1e-5)
            // A further mask comes on top; converting keeps it; editing again joins them.
            let more = columns([8], group: 1, of: 10)
            let both = try logits(model, mask: mask.union(more))
            #expect(relativeError(try logits(read, mask: more), both) < 1e-5)
            let stored = try MonetLanguageModel.load(folder + "/edited", for: .conversion)
            try AtomicFile.createFolder(folder + "/half")
            try Checkpoint.write(stored, dtype: .bfloat16, quantization: .int8, to: folder + "/half")
            #expect(try MonetLanguageModel.load(folder + "/half").ownMask == mask)
            #expect(
                try edited(stored, more, in: folder, name: "again") == .carried)
            #expect(relativeError(try logits(MonetLanguageModel.load(folder + "/again")), both) < 1e-5)
            // Without its mask the folder is no model.
            try FileManager.default.removeItem(atPath: folder + "/edited/expert_mask.safetensors")
            #expect(
                throws: ModelError.missingFile(folder: folder + "/edited", name: "expert_mask.safetensors")
            ) { try MonetLanguageModel.load(folder + "/edited") }
        }
    }

    @Test func strengthsOfNeuronsAreBakedIn() throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(.dense), seed: 54)
            var mask = UnitMask(model.units)
            mask.remove([0, 3], group: 0)
            mask.set([(index: 5, strength: 0.5), (index: 1, strength: 2)], group: 1)
            guard case .bakedIn(parts: 4, _) = try edited(model, mask, in: folder) else {
                Issue.record("the mask is not baked in")
                return
            }
            let read = try MonetLanguageModel.load(folder + "/edited")
            #expect(read.ownMask == nil && read.fingerprint == model.fingerprint)
            let config = try JSONValue(contentsOfFile: folder + "/edited/config.json")
            #expect(config["model_type"]?.stringValue == "llama")
            // Strengths multiply weights here and activations there; both are powers of two or zero.
            #expect(relativeError(try logits(read), try logits(model, mask: mask)) < 1e-6)
            #expect(relativeError(try logits(read), try logits(model)) > 1e-3)
        }
    }

    @Test func quantizedWeightsAreNotEdited() throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(.vertical), seed: 53)
            try AtomicFile.createFolder(folder + "/int8")
            try Checkpoint.write(model, dtype: .float32, quantization: .int8, to: folder + "/int8")
            let quantized = try MonetLanguageModel.load(folder + "/int8", for: .conversion)
            #expect(throws: ModelError.self) {
                try edited(quantized, columns([1], group: 0, of: 10), in: folder)
            }
        }
    }
}
