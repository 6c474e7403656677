import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Packed and quantized checkpoints against models of the decoded weights in the published layout.
@Suite struct QuantizedCheckpointTests {
    private let tokens: [[Int32]] = [
        [1, 5, 9, 33, 66, 2, 8, 8, 40, 3, 4, 5, 6], [3, 3, 3, 7, 9, 11, 50, 1, 2, 3, 4, 5, 6],
    ]

    private func logits(_ model: MonetLanguageModel, _ tokens: [[Int32]]) throws -> Tensor {
        let backend = CPUBackend()
        return try model.logits(
            model.forward(ForwardInput(tokens), on: backend).hidden.value, on: backend)
    }

    /// float32 sums of the same terms in other orders.
    @Test(arguments: [Family.horizontal, .vertical, .dense])
    func packingChangesNothing(kind: Family) throws {
        let model = try scrambledModel(smallConfiguration(kind), seed: 8)
        let packed = try model.packed()
        #expect(try relativeError(logits(packed, tokens), logits(model, tokens)) < 1e-5)
        #expect(try relativeError(logits(packed, [[4]]), logits(model, [[4]])) < 1e-5)
        // Packing twice is packing once, and a packed model is not written in the published layout.
        let prepared = try model.prepared(on: CPUBackend())
        #expect(try relativeError(logits(prepared, tokens), logits(model, tokens)) < 1e-5)
        let both = try packed.packed().prepared(on: CPUBackend())
        #expect(try relativeError(logits(both, tokens), logits(prepared, tokens)) == 0)
        if kind != .dense {
            try withTemporaryFolder { folder -> Void in
                #expect(throws: ModelError.self) { try Checkpoint.write(packed, dtype: .float32, to: folder) }
            }
        }
    }

    /// The model that a quantized checkpoint stands for, in the published layout and float32.
    private func decoded(_ model: MonetLanguageModel, _ quantization: MonetConfiguration.Quantization) throws
        -> MonetLanguageModel
    {
        let matrix: DType = quantization == .int8 ? .int8Rows : .int4Rows
        let experts = model.configuration.experts?.perSide ?? 1
        func rounded(_ tensor: Tensor, _ dtype: DType) -> Tensor {
            Tensor(tensor.converted(to: dtype).floats(), shape: tensor.shape)
        }
        /// Rows of a packed down-projection stand for columns of the published one.
        func roundedColumns(_ tensor: Tensor) -> Tensor {
            let rows = rounded(Tensor.expertRows(of: [tensor], experts: experts), matrix).floats()
            let (width, columns) = (tensor.shape[0], tensor.shape[1])
            return Tensor(
                (0..<(width * columns)).map { rows[$0 % columns * width + $0 / columns] }, shape: tensor.shape
            )
        }
        return try MonetLanguageModel(
            configuration: model.configuration,
            parameters: ParameterSet(
                model.parameters.all.map { parameter in
                    let tensor: Tensor =
                        switch parameter.role {
                        case .embedding: rounded(parameter.tensor, .int8Rows)
                        case .linear: rounded(parameter.tensor, matrix)
                        case .expert:
                            parameter.name.contains(".moe.v")
                                ? roundedColumns(parameter.tensor) : rounded(parameter.tensor, matrix)
                        default: parameter.tensor
                        }
                    return Parameter(name: parameter.name, tensor: tensor, role: parameter.role)
                }))
    }

    /// Products with 4-bit rows round activations in whole chunks of 128, which these rows do not fill:
    /// float32 sums through three layers.
    @Test(
        arguments: [Family.horizontal, .vertical, .dense],
        MonetConfiguration.Quantization.allCases)
    func quantizedCheckpointsStandForDecodedWeights(
        kind: Family, quantization: MonetConfiguration.Quantization
    ) throws {
        let model = try scrambledModel(smallConfiguration(kind), seed: 9)
        let reference = try decoded(model, quantization)
        try withTemporaryFolder { folder in
            try Checkpoint.write(
                model, dtype: .float32, quantization: quantization, shardBytes: 20000, to: folder)
            let loaded = try MonetLanguageModel.load(folder)
            #expect(loaded.configuration.quantization == quantization)
            for tokens in [tokens, [[7]], [[7, 8]], [[1, 2, 3, 4, 5]]] {
                #expect(try relativeError(logits(loaded, tokens), logits(reference, tokens)) < 1e-4)
            }
            #expect(throws: ModelError.self) { try MonetLanguageModel.load(folder, for: .training) }
            #expect(throws: ModelError.self) {
                let stored = try MonetLanguageModel.load(folder, for: .conversion)
                try Checkpoint.write(stored, dtype: .float32, to: folder)
            }
        }
    }

    @Test func spoiledQuantizedFilesAreNamed() throws {
        func message(_ change: (inout [(name: String, tensor: Tensor)]) throws -> Void) throws -> String {
            try withTemporaryFolder { folder in
                let model = try scrambledModel(smallConfiguration(.vertical), seed: 3)
                try Checkpoint.write(model, dtype: .float32, quantization: .int4, to: folder)
                let path = folder + "/model.safetensors"
                let file = try SafetensorsFile(path: path)
                var tensors = try file.entries.map {
                    (name: $0.name, tensor: try file.tensor($0.name).copy())
                }
                try change(&tensors)
                try SafetensorsWriter.write(tensors, to: path)
                do {
                    _ = try MonetLanguageModel.load(folder)
                    return "accepted"
                } catch { return "\(error)" }
            }
        }
        let name = "model.layers.1.moe.down1.weight.int4"
        let missing = try message { $0.removeAll { $0.name == name } }
        #expect(missing.contains("moe.down1.weight\" is missing"))
        let shorter = try message { tensors in
            for index in tensors.indices where tensors[index].name == name {
                let old = tensors[index].tensor
                tensors[index].tensor = old.slice(0..<(old.shape[0] - 1)).copy()
            }
        }
        #expect(shorter.contains(name) && shorter.contains("expected [60, "))
        let wide = try message { tensors in
            for index in tensors.indices where tensors[index].name == name {
                tensors[index].tensor = Tensor(zeros: tensors[index].tensor.shape)
            }
        }
        #expect(wide.contains(name) && wide.contains("expected U8"))
        let screen = try message { $0.removeAll { $0.name.hasSuffix("router.w1.screen_bounds") } }
        #expect(screen.contains("screen_bounds\" is missing"))
        #expect(
            try message { $0.append(("lm_head.weight.int8x", Tensor(zeros: [1]))) }.contains(
                "lm_head.weight.int8x"))
    }

    /// 4-bit rows were once laid out otherwise, under the same names and in as many bytes.
    @Test func formerLayoutIsRefused() throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(.vertical), seed: 3)
            try Checkpoint.write(model, dtype: .float32, quantization: .int4, to: folder)
            let path = folder + "/config.json"
            let text = try String(contentsOfFile: path, encoding: .utf8)
            let former = text.replacing(/"layout": 2,\s*/, with: "")
            #expect(former != text)
            try former.write(toFile: path, atomically: true, encoding: .utf8)
            do {
                _ = try MonetLanguageModel.load(folder)
                Issue.record("accepted")
            } catch {
                #expect(
                    "\(error)".contains("config.json") && "\(error)".contains("quantization_config.layout"))
            }
        }
    }

    /// Masks of a file, read with the model's shape.
    @Test func maskFiles() throws {
        let c = smallConfiguration(.horizontal)
        func read(_ tensors: [(name: String, tensor: Tensor)]) throws -> UnitMask {
            try withTemporaryFolder { folder in
                try SafetensorsWriter.write(tensors, to: folder + "/mask.safetensors")
                return try MaskFile(contentsOfFile: folder + "/mask.safetensors", configuration: c).mask
            }
        }
        func int64(_ values: [Int64]) -> Tensor {
            Tensor(int64: values.map(Int.init))
        }
        let mask = try read([
            ("removed.0", int64([0, 99, 42])), ("scaled.1.index", int64([7, 8])),
            ("scaled.1.strength", Tensor([Float(0.5), 1], shape: [2])),
        ])
        #expect(mask.groups == [0, 1] && mask.count(group: 0) == 3 && mask.count(group: 1) == 1)
        for (tensors, words) in [
            ([("removed.0", int64([100]))], ["removed.0", "expert 100", "0 to 99"]),
            ([("removed.2", int64([1]))], ["removed.2", "below 2"]),
            ([("removed.0", Tensor([Float(1)], shape: [1]))], ["removed.0", "I64"]),
            ([("scaled.0.index", int64([1]))], ["scaled.0.strength", "missing"]),
            ([("scaled.0.strength", Tensor([Float(1)], shape: [1]))], ["scaled.0.index", "missing"]),
            (
                [("scaled.0.index", int64([1])), ("scaled.0.strength", Tensor([Float(-1)], shape: [1]))],
                ["scaled.0.strength", "-1"]
            ),
            ([("other", int64([1]))], ["other", "removed.{g}"]),
        ] as [([(name: String, tensor: Tensor)], [String])] {
            do {
                _ = try read(tensors)
                Issue.record("accepted \(tensors.map { $0.name })")
            } catch {
                for word in words { #expect("\(error)".contains(word), "\(error)") }
            }
        }
        // All experts of every group removed: the layers add nothing, as in a model without them.
        let model = try scrambledModel(c, seed: 5)
        let backend = CPUBackend()
        var all = UnitMask(model.units)
        for group in 0..<2 { all.remove(0..<100, group: group) }
        let masked = try model.prepared(on: backend).forward(ForwardInput(tokens, mask: all), on: backend)
            .hidden.value
        let silent = try MonetLanguageModel(
            configuration: c,
            parameters: ParameterSet(
                model.parameters.all.map {
                    Parameter(
                        name: $0.name,
                        tensor: $0.name.contains(".moe.") ? Tensor(zeros: $0.tensor.shape) : $0.tensor,
                        role: $0.role)
                }))
        let expected = try silent.forward(ForwardInput(tokens), on: backend).hidden.value
        #expect(relativeError(masked, expected) < 1e-6)
    }
}
