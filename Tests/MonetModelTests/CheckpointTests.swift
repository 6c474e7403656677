import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

@Suite struct CheckpointTests {
    static var configuration: MonetConfiguration {
        var c = MonetConfiguration()
        (c.vocabularySize, c.hiddenSize, c.layerCount, c.attentionHeads, c.keyValueHeads, c.headWidth) = (
            40, 16, 3, 2, 1, 8
        )
        c.experts = ExpertSettings(width: 4, heads: 3, perSide: 5, topK: 2, layersPerRouter: 2)
        c.attentionBias = true
        return c
    }

    private func logits(_ model: MonetLanguageModel) throws -> [Float] {
        let backend = CPUBackend()
        let output = try model.forward(ForwardInput([[1, 5, 17, 39]]), on: backend)
        return try model.logits(output.hidden.value, on: backend).floats()
    }

    /// The tensors of a folder by name, as bytes.
    private func bytes(_ folder: String) throws -> [String: [UInt8]] {
        let tensors = try Checkpoint.tensors(folder)
        var result: [String: [UInt8]] = [:]
        for file in tensors.files.values {
            for entry in file.entries {
                result[entry.name] = try file.tensor(entry.name).withUnsafeBytes { [UInt8]($0) }
            }
        }
        return result
    }

    @Test(arguments: [DType.float32, .bfloat16, .float16], [Int.max, 3000, 1])
    func roundTrip(dtype: DType, shardBytes: Int) throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(Self.configuration, seed: 3)
            try Checkpoint.write(model, dtype: dtype, shardBytes: shardBytes, to: folder)
            let loaded = try MonetLanguageModel.load(folder, for: .conversion)
            #expect(loaded.configuration.dtype == dtype)
            for (old, new) in zip(model.parameters.all, loaded.parameters.all) {
                #expect(old.name == new.name)
                let expected = old.role.isParameter ? old.tensor.converted(to: dtype) : old.tensor
                #expect(new.tensor.dtype == expected.dtype)
                #expect(
                    new.tensor.withUnsafeBytes { [UInt8]($0) } == expected.withUnsafeBytes { [UInt8]($0) })
            }
            // Written again, the tensors are the same byte for byte.
            let second = folder + "/second"
            try FileManager.default.createDirectory(atPath: second, withIntermediateDirectories: true)
            try Checkpoint.write(loaded, dtype: dtype, to: second)
            #expect(try bytes(folder) == bytes(second))
            if dtype == .float32 { #expect(try logits(loaded) == logits(model)) }
            let sharded = FileManager.default.fileExists(atPath: folder + "/model.safetensors.index.json")
            #expect(sharded == (shardBytes < .max))
        }
    }

    @Test func tiedWeightsHaveNoHead() throws {
        try withTemporaryFolder { folder in
            var c = Self.configuration
            c.tieWordEmbeddings = true
            let model = try scrambledModel(c, seed: 4)
            try Checkpoint.write(model, dtype: .float32, to: folder)
            #expect(try bytes(folder)["lm_head.weight"] == nil)
            #expect(try logits(MonetLanguageModel.load(folder, for: .conversion)) == logits(model))
        }
    }

    /// Writes a good checkpoint, spoils it, and returns the message of loading it.
    private func messageAfter(_ spoil: (String) throws -> Void) throws -> String {
        try withTemporaryFolder { folder in
            try Checkpoint.write(try scrambledModel(Self.configuration, seed: 3), dtype: .float32, to: folder)
            try spoil(folder)
            do {
                _ = try MonetLanguageModel.load(folder)
                return "accepted"
            } catch {
                return "\(error)"
            }
        }
    }

    private func rewrite(_ folder: String, _ change: (inout [(name: String, tensor: Tensor)]) -> Void) throws
    {
        let path = folder + "/model.safetensors"
        let file = try SafetensorsFile(path: path)
        var tensors = try file.entries.map { (name: $0.name, tensor: try file.tensor($0.name).copy()) }
        change(&tensors)
        try SafetensorsWriter.write(tensors, to: path)
    }

    private func configure(_ folder: String, _ key: String, _ value: String) throws {
        let path = folder + "/config.json"
        let json = try JSONValue(contentsOfFile: path)
        let members = (json.members ?? []).map { member in
            "\"\(member.key)\": " + (member.key == key ? value : member.value.serialized())
        }
        try AtomicFile.write("{" + members.joined(separator: ",") + "}", to: path)
    }

    @Test func missingUnexpectedAndMisshapenTensorsAreNamed() throws {
        let missing = try messageAfter { try rewrite($0) { $0.removeAll { $0.name == "model.norm.weight" } } }
        #expect(missing.contains("model.safetensors") && missing.contains("\"model.norm.weight\" is missing"))
        let extra = try messageAfter {
            try rewrite($0) { $0.append(("model.layers.9.x", Tensor(zeros: [1]))) }
        }
        #expect(extra.contains("\"model.layers.9.x\""))
        let shape = try messageAfter {
            try rewrite($0) { tensors in
                for index in tensors.indices where tensors[index].name == "model.layers.1.moe.b1" {
                    tensors[index].tensor = Tensor(zeros: [5, 9])
                }
            }
        }
        #expect(shape.contains("\"model.layers.1.moe.b1\" has shape [5, 9], expected [5, 8]"))
        let type = try messageAfter {
            try rewrite($0) { tensors in
                for index in tensors.indices where tensors[index].name == "lm_head.weight" {
                    tensors[index].tensor = Tensor([Int32](repeating: 0, count: 640), shape: [40, 16])
                }
            }
        }
        #expect(type.contains("\"lm_head.weight\" has type I32"))
    }

    @Test(arguments: [
        ("hidden_size", "NaN"), ("hidden_size", "0"), ("hidden_size", "-3"), ("hidden_size", "\"wide\""),
        ("hidden_size", "1e300"), ("hidden_size", "null"), ("rms_norm_eps", "-1"), ("rope_theta", "Infinity"),
        ("moe_topk", "99"), ("moe_decompose", "\"diagonal\""), ("hidden_act", "\"gelu\""),
        ("model_type", "\"gpt2\""),
        ("num_key_value_heads", "3"), ("vocab_size", "99999999999999"), ("moe_groups", "0"),
        ("rope_scaling", #"{"type": "yarn", "factor": 2}"#),
        ("rope_scaling", #"{"type": "linear", "factor": -2}"#),
    ])
    func badConfigurationsNameTheKey(key: String, value: String) throws {
        let message = try messageAfter { try configure($0, key, value) }
        #expect(message.contains("config.json"), "\(message)")
        #expect(message.contains(key) || message.contains(value), "\(message)")
    }

    @Test func damagedFoldersAreErrors() throws {
        #expect(
            try messageAfter { try FileManager.default.removeItem(atPath: $0 + "/config.json") }.contains(
                "config.json is missing"))
        #expect(
            try messageAfter { try FileManager.default.removeItem(atPath: $0 + "/model.safetensors") }
                .contains("model.safetensors"))
        #expect(
            try messageAfter { try AtomicFile.write("", to: $0 + "/config.json") }.contains("config.json"))
        #expect(
            try messageAfter { try AtomicFile.write("{\"a\": 1, \"a\": 2}", to: $0 + "/config.json") }
                .contains("\"a\""))
        let truncated = try messageAfter { folder in
            let path = folder + "/model.safetensors"
            let data = try Data(contentsOf: URL(fileURLWithPath: path))
            try data.prefix(data.count - 5).write(to: URL(fileURLWithPath: path))
        }
        #expect(truncated.contains("truncated"))
    }

    @Test func shardIndexesAreChecked() throws {
        func message(_ change: (String) throws -> Void) throws -> String {
            try withTemporaryFolder { folder in
                try Checkpoint.write(
                    try scrambledModel(Self.configuration, seed: 3), dtype: .float32, shardBytes: 9000,
                    to: folder)
                try change(folder)
                do {
                    _ = try MonetLanguageModel.load(folder)
                    return "accepted"
                } catch { return "\(error)" }
            }
        }
        func edit(_ folder: String, _ old: String, _ new: String) throws {
            let path = folder + "/model.safetensors.index.json"
            let text = try TextFile.read(path)
            #expect(text.contains(old))
            try AtomicFile.write(text.replacingOccurrences(of: old, with: new), to: path)
        }
        #expect(try message { _ in } == "accepted")
        #expect(
            try message {
                try FileManager.default.removeItem(atPath: $0 + "/model-00002-of-00004.safetensors")
            }.contains("model-00002-of-00004.safetensors is missing"))
        #expect(
            try message { try edit($0, "\"lm_head.weight\"", "\"lm_tail.weight\"") }.contains(
                "lm_tail.weight"))
        #expect(
            try message { try edit($0, "model-00001-of", "../model-00001-of") }.contains("not a file name"))
        #expect(try message { try edit($0, "weight_map", "weights") }.contains("no weight_map"))
    }

    @Test func presetsHaveThePublishedSizes() throws {
        for (name, count) in [
            ("850M-vd", 853_501_440), ("1.4B-vd", 1_465_157_632), ("1.4B-hd", 1_465_157_632),
            ("4.1B-vd", 4_173_401_088),
        ] {
            #expect(try MonetConfiguration.preset(name).parameterCount == count)
        }
        for name in MonetConfiguration.presetNames {
            let configuration = try MonetConfiguration.preset(name)
            try configuration.validate()
            let read = try MonetConfiguration(json: configuration.json(), file: name)
            #expect(read.shapes() == configuration.shapes())
            #expect(read == configuration)
        }
        for size in ["nano", "tiny", "small", "1.4B"] {
            let (monet, dense) = (
                try MonetConfiguration.preset(size + "-vd"), try MonetConfiguration.preset(size + "-llama")
            )
            let difference = abs(monet.parameterCount - dense.parameterCount)
            // Half of the step of 8 hidden units.
            #expect(difference <= 12 * monet.hiddenSize * monet.layerCount)
        }
        #expect(throws: ModelError.unknownPreset(name: "huge", available: MonetConfiguration.presetNames)) {
            try MonetConfiguration.preset("huge")
        }
    }
}
