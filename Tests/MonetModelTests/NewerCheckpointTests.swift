import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// What transformers writes today, and what it reads beside the weights.
@Suite struct NewerCheckpointTests {
    private func configuration(_ changes: [String: JSONValue]) throws -> MonetConfiguration {
        var members = try #require(smallConfiguration(.vertical).json().members)
        for (key, value) in changes {
            members.removeAll { $0.key == key }
            members.append(.init(key, value))
        }
        return try MonetConfiguration(json: .object(members), file: "config.json")
    }

    private func message(_ changes: [String: JSONValue]) -> String {
        do {
            _ = try configuration(changes)
            return "accepted"
        } catch { return "\(error)" }
    }

    @Test func rotarySettingsOfTransformers5() throws {
        let none: [String: JSONValue] = ["rope_theta": .null, "rope_scaling": .null]
        func read(_ value: JSONValue) throws -> MonetConfiguration {
            try configuration(none.merging(["rope_parameters": value]) { $1 })
        }
        let theta = try read(["rope_theta": 500000.0, "rope_type": "default"])
        #expect(theta.ropeTheta == 500000 && theta.ropeScaling == nil)
        let linear = try read(["rope_theta": 1000.0, "rope_type": "linear", "factor": 4.0])
        #expect(linear.ropeTheta == 1000 && linear.ropeScaling == .linear(factor: 4))
        #expect(linear.contextLength == 256)
        #expect(try read(["rope_type": "dynamic", "factor": 2]).ropeScaling == .dynamic(factor: 2))
        // What was read is what is written.
        #expect(try MonetConfiguration(json: linear.json(), file: "again") == linear)
        // It overrules the older spelling, as in transformers 5.
        let both = try configuration(["rope_theta": 7.0, "rope_parameters": ["rope_theta": 9.0]])
        #expect(both.ropeTheta == 9)
        for (value, key) in [
            (["rope_type": "yarn", "factor": 2.0], "rope_type"),
            (["rope_type": "linear"], "rope_parameters.factor"),
            (["rope_type": "linear", "factor": 2.0, "beta_fast": 32.0], "rope_parameters.beta_fast"),
            (
                ["rope_type": "default", "partial_rotary_factor": 0.5],
                "rope_parameters.partial_rotary_factor"
            ),
            (["full_attention": ["rope_type": "default"]], "rope_parameters.full_attention"),
            (["rope_theta": "big"], "rope_parameters.rope_theta"), ("linear", "rope_parameters"),
        ] as [(JSONValue, String)] {
            let found = message(none.merging(["rope_parameters": value]) { $1 })
            #expect(found.contains("config.json") && found.contains(key), "\(found)")
        }
    }

    @Test func otherMathematicsIsRefusedByName() throws {
        for (key, value) in [
            ("sliding_window", 128), ("attn_logit_softcapping", 30.0), ("logits_scaling", 8.0),
            ("partial_rotary_factor", 0.5), ("use_qk_norm", true), ("layer_types", ["sliding_attention"]),
        ] as [(String, JSONValue)] {
            #expect(message([key: value]).contains(key), "\(key)")
        }
        for (key, value) in [
            ("sliding_window", .null), ("logits_scaling", 1), ("layer_types", ["full_attention"]),
            ("note", "ours"),
        ] as [(String, JSONValue)] {
            #expect(message([key: value]) == "accepted", "\(key)")
        }
    }

    @Test func typesAndTokensAreNamedByTheirKey() throws {
        #expect(try configuration(["torch_dtype": .null, "dtype": "bfloat16"]).dtype == .bfloat16)
        #expect(message(["dtype": "int3"]).contains("\"dtype\""))
        #expect(message(["bos_token_id": 5000]).contains("bos_token_id"))
        #expect(message(["eos_token_id": [2, 5000]]).contains("eos_token_id"))
    }

    @Test func keysWithoutEffectAreKept() throws {
        let read = try configuration([
            "note": ["a": 1], "attention_dropout": 0.25, "transformers_version": "5.24.0",
        ])
        let json = read.json()
        #expect(json["note"] == ["a": 1] && json["attention_dropout"] == 0.25)
        #expect(json["transformers_version"] == "5.24.0" && json["use_cache"] == true)
        #expect(Set(try #require(json.members).map(\.key)).count == json.members?.count)
    }

    // MARK: Folders

    private func folder<Result>(
        _ change: (String) throws -> Void, _ body: (String) throws -> Result
    ) throws -> Result {
        try withTemporaryFolder { root in
            let path = root + "/model"
            try AtomicFile.createFolder(path)
            try Checkpoint.write(
                scrambledModel(smallConfiguration(.vertical), seed: 3), dtype: .float32, to: path)
            try change(path)
            return try body(path)
        }
    }

    @Test func generationSettingsAreReadAndKept() throws {
        let text = """
            {"_from_model_config": true, "bos_token_id": 1, "eos_token_id": [2, 64], "temperature": 0.6,
             "top_k": 40, "max_length": 4096, "do_sample": true, "stop_strings": "END", "pad_token_id": -1}
            """
        try folder({ try AtomicFile.write(text, to: $0 + "/generation_config.json") }) { path in
            let model = try MonetLanguageModel.load(path, for: .conversion)
            let defaults = try #require(model.configuration.generation)
            #expect(model.configuration.stopTokenIDs == [2, 64] && model.configuration.endTokenIDs == [2])
            #expect(defaults.temperature == 0.6 && defaults.topK == 40 && defaults.maxLength == 4096)
            #expect(defaults.drawsTokens == true && defaults.stopStrings == ["END"] && defaults.topP == nil)
            #expect(defaults.unsupported.isEmpty)
            let copy = path + "-copy"
            try AtomicFile.createFolder(copy)
            try Checkpoint.write(model, dtype: .bfloat16, to: copy)
            #expect(
                try JSONValue(contentsOfFile: copy + "/generation_config.json")
                    == JSONValue(parsing: text, source: "text"))
        }
        for (key, value) in [
            ("eos_token_id", "[2, 67]"), ("temperature", "-1"), ("top_p", "\"all\""), ("top_k", "-5"),
            ("do_sample", "1"), ("stop_strings", "[\"\"]"), ("bos_token_id", "5000"),
        ] {
            let found = try folder({
                try AtomicFile.write("{\"\(key)\": \(value)}", to: $0 + "/generation_config.json")
            }) { path -> String in
                do {
                    _ = try Checkpoint.configuration(path)
                    return "accepted"
                } catch { return "\(error)" }
            }
            #expect(found.contains("generation_config.json") && found.contains(key), "\(found)")
        }
        try folder({
            try AtomicFile.write(
                #"{"num_beams": 4, "min_length": 0, "suppress_tokens": [], "typical_p": 1}"#,
                to: $0 + "/generation_config.json")
        }) { path in
            let read = try Checkpoint.configuration(path).generation
            #expect(read?.unsupported == [.init("num_beams", 4)])
        }
    }

    @Test func codeOfEveryFolderIsThere() throws {
        try folder({ _ in }) { path in
            let map = try JSONValue(contentsOfFile: path + "/config.json")["auto_map"]
            #expect(map?["AutoModelForCausalLM"] == "modeling_monet.MonetForCausalLM")
            let code = try TextFile.read(path + "/modeling_monet.py")
            #expect(code.contains("class MonetForCausalLM") && code.contains("class MaskedMonetForCausalLM"))
            // A published checkpoint's own code stays, and what it cannot run comes beside it.
            let model = try MonetLanguageModel.load(path, for: .conversion)
            let published = "class MonetForCausalLM: pass\n"
            var mask = UnitMask(model.units)
            mask.remove([3], group: 0)
            for (name, module) in [("plain", "modeling_monet"), ("masked", "modeling_monet_masked")] {
                let target = path + "-" + name
                try AtomicFile.createFolder(target)
                try AtomicFile.write(published, to: target + "/modeling_monet.py")
                let written =
                    name == "plain"
                    ? model
                    : try MonetLanguageModel(
                        configuration: model.configuration, parameters: model.parameters, ownMask: mask)
                try Checkpoint.write(written, dtype: .float32, to: target)
                #expect(try TextFile.read(target + "/modeling_monet.py") == published)
                let found = try JSONValue(contentsOfFile: target + "/config.json")["auto_map"]?["AutoConfig"]
                #expect(found?.stringValue?.hasPrefix(module + ".") == true)
                #expect(FileManager.default.fileExists(atPath: target + "/" + module + ".py"))
            }
        }
    }

    @Test func marksAndPointers() throws {
        try folder({
            let text = try TextFile.read($0 + "/config.json")
            try AtomicFile.write("\u{feff}" + text, to: $0 + "/config.json")
        }) { _ = try MonetLanguageModel.load($0) }
        let pointer = """
            version https://git-lfs.github.com/spec/v1
            oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
            size 12345

            """
        for name in ["model.safetensors", "config.json"] {
            try folder({ try AtomicFile.write(pointer, to: $0 + "/" + name) }) { path in
                let error = try #require(
                    #expect(throws: FileError.self) { try MonetLanguageModel.load(path) })
                #expect("\(error)".contains("\(path)/\(name)") && "\(error)".contains("Git LFS"))
            }
        }
    }
}
