import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Low-rank adapters: what they add, their gradients, and their files.
@Suite struct AdapterTests {
    /// A model with adapters that change something.
    private static func adapted(_ c: MonetConfiguration, rank: Int, alpha: Double) throws
        -> MonetLanguageModel
    {
        let model = try scrambledModel(c, seed: 5).with(
            LowRankAdapters(rank: rank, alpha: alpha), seed: 7)
        var source = TensorSource(seed: 8)
        for parameter in model.parameters.all where parameter.name.hasSuffix("lora_B.weight") {
            try parameter.tensor.write(source.normal(parameter.tensor.shape, deviation: 0.3).floats())
        }
        return model
    }

    private static let tokens: [[Int32]] = [[5, 9, 13, 2, 40], [3, 31, 8]]

    /// The base with W + α/r · B A in double precision, written to float32.
    private static func reference(_ model: MonetLanguageModel, scale: Double) throws -> MonetLanguageModel {
        let parameters = model.parameters.all.filter { $0.role != .adapter }.map {
            parameter -> Parameter in
            let prefix = parameter.name.dropLast("weight".count)
            guard let a = try? model.parameters(prefix + "lora_A.weight").tensor,
                let b = try? model.parameters(prefix + "lora_B.weight").tensor
            else { return parameter }
            let (weight, left, right) = (Reference(parameter.tensor), Reference(b), Reference(a))
            let values = (0..<weight.shape[0]).flatMap { row in
                (0..<weight.shape[1]).map { column in
                    Float(
                        weight[row, column]
                            + scale * (0..<left.shape[1]).reduce(0) { $0 + left[row, $1] * right[$1, column] }
                    )
                }
            }
            return Parameter(
                name: parameter.name, tensor: Tensor(values, shape: parameter.tensor.shape),
                role: parameter.role)
        }
        return try MonetLanguageModel(
            configuration: model.configuration, parameters: ParameterSet(parameters))
    }

    @Test(arguments: [Family.vertical, .dense], [(rank: 1, alpha: 1.0), (rank: 4, alpha: 16.0)])
    func theyAddAProductOfLowRank(family: Family, size: (rank: Int, alpha: Double)) throws {
        var c = smallConfiguration(family)
        c.keyValueHeads = 1
        let model = try Self.adapted(c, rank: size.rank, alpha: size.alpha)
        let reference = try Self.reference(model, scale: size.alpha / Double(size.rank))
        let expected = ReferenceModel(reference)
        let merged = try model.merged()
        #expect(merged.adapters == nil && merged.parameters.all.count == reference.parameters.all.count)
        for device in Device.allCases {
            for candidate in [model, merged] {
                let own = try candidate.moved(to: device.backend)
                for sequence in Self.tokens {
                    let output = try own.forward(ForwardInput([sequence]), on: device.backend)
                    let logits = try own.logits(output.hidden.value, on: device.backend).floats()
                    // Float32 sums against double precision, as in the parity of whole models.
                    #expect(relativeError(logits.map(Double.init), expected([sequence]).logits.values) < 2e-5)
                }
            }
        }
        // Without training, B is 0 and nothing changes.
        let fresh = try scrambledModel(c, seed: 5)
        let same = try fresh.with(LowRankAdapters(rank: size.rank, alpha: size.alpha), seed: 7)
        #expect(
            try fresh.forward(ForwardInput(Self.tokens)).hidden.value.floats()
                == same.forward(ForwardInput(Self.tokens)).hidden.value.floats())
    }

    /// Central differences of the loss in double precision, of the model with the product added in. The model is dense:
    /// where a step changes which experts a router selects, a difference is no derivative.
    @Test func gradientsAreDerivatives() throws {
        let c = smallConfiguration(.dense)
        let model = try Self.adapted(c, rank: 2, alpha: 3)
        let targets = Self.tokens.flatMap { $0.map { ($0 * 5 + 1) % Int32(c.vocabularySize) } }
        let variables = ParameterVariables { !$0.contains("lora_") }
        let output = try model.forward(ForwardInput(Self.tokens), variables: variables)
        _ = try model.crossEntropy(output, targets: targets)
        try output.backward()
        func loss() throws -> Double {
            let reference = ReferenceModel(try Self.reference(model, scale: 1.5))
            var first = 0
            return Self.tokens.reduce(0.0) { sum, sequence in
                let logits = reference([sequence]).logits
                defer { first += sequence.count }
                return sum
                    + sequence.indices.reduce(0.0) { sum, row in
                        let values = (0..<c.vocabularySize).map { logits[row, $0] }
                        let largest = values.max() ?? 0
                        let total = values.reduce(0) { $0 + exp($1 - largest) }
                        return sum + largest + log(total) - values[Int(targets[first + row])]
                    }
            }
        }
        var checked = 0
        for parameter in model.parameters.all {
            guard parameter.role == .adapter else {
                #expect(
                    variables.gradient(of: parameter)?.floats().allSatisfy { $0 == 0 } ?? true
                        || parameter.role == .norm, "\(parameter.name) keeps a gradient")
                continue
            }
            let gradient = try #require(variables.gradient(of: parameter)).floats()
            let values = parameter.tensor.floats()
            guard let place = gradient.indices.max(by: { abs(gradient[$0]) < abs(gradient[$1]) }) else {
                continue
            }
            func changed(_ change: Float) throws -> Double {
                var new = values
                new[place] += change
                try parameter.tensor.write(new)
                defer { try? parameter.tensor.write(values) }
                return try loss()
            }
            let width: Float = 4e-3
            let difference =
                try (changed(width) - changed(-width))
                / Double((values[place] + width) - (values[place] - width))
            // The merged reference is rounded to float32, which differences of 8e-3 divide by.
            #expect(
                abs(difference - Double(gradient[place])) < 0.02 * abs(difference) + 1e-3,
                "\(parameter.name): \(gradient[place]), expected \(difference)")
            checked += 1
        }
        #expect(checked == 2 * 4 * c.layerCount)
    }

    @Test func foldersAreRead() throws {
        try withTemporaryFolder { folder in
            let c = smallConfiguration(.vertical)
            let model = try Self.adapted(c, rank: 2, alpha: 3)
            let (base, adapters) = (folder + "/base", folder + "/adapters")
            for path in [base, adapters] { try AtomicFile.createFolder(path) }
            try Checkpoint.write(scrambledModel(c, seed: 5), dtype: .float32, to: base)
            try AdapterFolder.write(model, base: base, to: adapters)
            #expect(AdapterFolder.isOne(adapters) && !AdapterFolder.isOne(base))
            let expected = try model.forward(ForwardInput(Self.tokens)).hidden.value.floats().map(Double.init)
            for purpose in [LoadPurpose.inference, .conversion, .training] {
                let loaded = try MonetLanguageModel.load(adapters, for: purpose)
                #expect(loaded.adapters == nil)
                let found = try loaded.forward(ForwardInput(Self.tokens)).hidden.value.floats()
                #expect(relativeError(found.map(Double.init), expected) < 1e-5, "\(purpose)")
            }
            #expect(throws: ModelError.self) { try Checkpoint.write(model, dtype: .float32, to: base) }
            // A base beside the adapters is found by its relative name.
            let path = adapters + "/adapter_config.json"
            let text = try TextFile.read(path)
            try AtomicFile.write(
                text.replacingOccurrences(of: JSONValue.string(base).serialized(), with: "\"../base\""),
                to: path)
            #expect(try AdapterFolder.base(of: adapters) == adapters + "/../base")
            _ = try MonetLanguageModel.load(adapters)
            for (old, new) in [
                ("\"LORA\"", "\"IA3\""), ("\"r\": 2", "\"r\": 3"), ("\"r\": 2", "\"r\": 0"),
                ("\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true"), ("\"none\"", "\"all\""),
                (JSONValue.string(base).serialized(), "\"/nowhere/base\""),
            ] {
                #expect(text.contains(old), "\(old)")
                try AtomicFile.write(text.replacingOccurrences(of: old, with: new), to: path)
                #expect(throws: (any Error).self, "\(new)") { try MonetLanguageModel.load(adapters) }
            }
            for (start, isFine) in [("true", true), ("\"gaussian\"", true), ("\"pissa\"", false)] {
                try AtomicFile.write(
                    text.replacingOccurrences(
                        of: "\"init_lora_weights\": true", with: "\"init_lora_weights\": \(start)"), to: path)
                if isFine {
                    _ = try MonetLanguageModel.load(adapters)
                } else {
                    #expect(throws: ModelError.self) { try MonetLanguageModel.load(adapters) }
                }
            }
            // A base that was replaced by another model of the same sizes.
            try AtomicFile.write(text, to: path)
            try TunedOrigin(fingerprints: [scrambledModel(c, seed: 5).fingerprint]).write(to: adapters)
            _ = try MonetLanguageModel.load(adapters)
            try Checkpoint.write(scrambledModel(c, seed: 6), dtype: .float32, to: base)
            #expect(throws: ModelError.self) { try MonetLanguageModel.load(adapters) }
            try Checkpoint.write(scrambledModel(c, seed: 5), dtype: .float32, to: base)
            // Folders that lead back to themselves.
            for name in [adapters, ".", folder + "/other"] {
                try AtomicFile.createFolder(folder + "/other")
                let ring = text.replacingOccurrences(
                    of: JSONValue.string(base).serialized(), with: JSONValue.string(name).serialized())
                try AtomicFile.write(ring, to: path)
                try AtomicFile.write(
                    text.replacingOccurrences(
                        of: JSONValue.string(base).serialized(), with: JSONValue.string(adapters).serialized()
                    ),
                    to: folder + "/other/adapter_config.json")
                #expect(throws: (any Error).self, "\(name)") { try MonetLanguageModel.load(adapters) }
            }
            // peft writes neither configuration nor tokenizer.
            try AtomicFile.write(text, to: path)
            try FileManager.default.removeItem(atPath: adapters + "/config.json")
            #expect(try Checkpoint.configuration(adapters).shapes() == c.shapes())
            _ = try MonetLanguageModel.load(adapters)
            try FileManager.default.removeItem(atPath: adapters + "/adapter_model.safetensors")
            #expect(throws: ModelError.self) { try MonetLanguageModel.load(adapters) }
        }
    }

    @Test(arguments: [(0, 1.0), (1 << 17, 1.0), (4, 0.0), (4, -1.0), (4, Double.nan)])
    func sizesThatNoModelHasAreRefused(rank: Int, alpha: Double) {
        #expect(throws: ModelError.self) { try LowRankAdapters(rank: rank, alpha: alpha) }
    }
}
