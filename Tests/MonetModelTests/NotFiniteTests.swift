import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// NaN and infinities in weights never pass for a result.
@Suite struct NotFiniteTests {
    /// Every tensor of every family, in its file: the error names it, whatever the element.
    @Test(arguments: Family.allCases, [Float.nan, .infinity, -.infinity])
    func aLoadNamesTheTensor(family: Family, value: Float) throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(family), seed: 5)
            try Checkpoint.write(model, dtype: .float32, to: folder)
            let path = folder + "/model.safetensors"
            let whole = try Data(contentsOf: URL(fileURLWithPath: path))
            var source = SplitMix64(seed: 1)
            for parameter in model.parameters.trainable {
                let element = Int(source.next() % UInt64(parameter.tensor.count))
                try DamagedFile.write(value, toTensor: parameter.name, element: element, of: path)
                for purpose in [LoadPurpose.inference, .training] {
                    do {
                        _ = try MonetLanguageModel.load(folder, for: purpose)
                        Issue.record("\(parameter.name) was accepted")
                    } catch ModelError.notFinite(let what, let place) {
                        #expect(what == "\(path): tensor \"\(parameter.name)\"")
                        #expect(place?.hasPrefix("element [") == true)
                    }
                }
                // What is read only to be written again is checked too, before anything is left.
                let converted = folder + "/converted"
                #expect(throws: ModelError.self) {
                    try AtomicFile.writeFolder(converted) {
                        try Checkpoint.write(
                            MonetLanguageModel.load(folder, for: .conversion), dtype: .bfloat16, to: $0)
                    }
                }
                #expect(!FileManager.default.fileExists(atPath: converted))
                try whole.write(to: URL(fileURLWithPath: path))
            }
        }
    }

    /// In weights that were not checked, as those of large models are not, what is used is noticed.
    @Test(arguments: Family.allCases, [Float.nan, -.infinity])
    func aPassNamesTheTensor(family: Family, value: Float) throws {
        for precision in [ComputePrecision.float32, .bfloat16] {
            let backend = CPUBackend(precision: precision)
            let names = try scrambledModel(smallConfiguration(family), seed: 5).parameters.trainable.map(
                \.name)
            for name in names {
                let model = try scrambledModel(smallConfiguration(family), seed: 5)
                let weight = try model.parameters(name).tensor
                try weight.write([Float](repeating: value, count: weight.count))
                let prepared = try model.prepared(on: backend)
                for ids: [Int32] in [[3], [1, 5, 17, 39, 2, 66]] {
                    do {
                        let output = try prepared.forward(ForwardInput([ids]), on: backend)
                        _ = try prepared.logits(output.hidden.value, on: backend)
                        Issue.record("\(name) full of \(value) was accepted at \(precision)")
                    } catch ModelError.notFinite(let what, _) {
                        #expect(what.contains(name), "\(what) for \(name)")
                    }
                }
            }
        }
    }

    /// Numbers that overflow on the way are the layer's.
    @Test func aPassNamesTheLayer() throws {
        let model = try scrambledModel(smallConfiguration(.dense), seed: 5)
        let weight = try model.parameters("model.layers.1.mlp.down_proj.weight").tensor
        try weight.write([Float](repeating: 3e38, count: weight.count))
        do {
            _ = try model.forward(ForwardInput([[1, 2, 3]]))
            Issue.record("an overflow was accepted")
        } catch ModelError.notFinite(let what, _) {
            #expect(what == "the output of layer 1")
        }
    }

    @Test func narrowingThatOverflowsIsRefused() throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(.vertical), seed: 5)
            let weight = try model.parameters("model.embed_tokens.weight").tensor
            var values = weight.floats()
            values[41] = 1e5
            try weight.write(values)
            #expect(throws: ModelError.self) {
                try Checkpoint.write(model, dtype: .float16, to: folder)
            }
            try Checkpoint.write(model, dtype: .bfloat16, to: folder)
        }
    }

    /// All places of all types, also at the ends of the blocks in which they are searched.
    @Test(arguments: [DType.float32, .bfloat16, .float16])
    func everyElementIsSearched(dtype: DType) throws {
        for count in [1, 4095, 4096, 4097, (1 << 20) + 3] {
            let zeros = Tensor(zeros: [count], dtype: dtype)
            #expect(zeros.firstNonFinite() == nil)
            let places = [0, 1, 4094, 4095, 4096, (1 << 20) - 1, 1 << 20, count - 1].filter { $0 < count }
            for place in Set(places) {
                for value in [Float.nan, .infinity, -.infinity] {
                    var values = [Float](repeating: 1, count: count)
                    values[place] = value
                    #expect(
                        Tensor(values, shape: [count]).converted(to: dtype).firstNonFinite() == place)
                }
            }
        }
    }
}
