import EmulatedKernels
import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// A batch-invariant backend gives a sequence the same bits alone, in pieces, and beside others.
@Suite struct BatchInvarianceTests {
    /// How the weights are stored.
    enum Storage: String, CaseIterable, Sendable {
        case float32, packed, bfloat16, float16, int8, int4
    }

    /// Wide enough for whole chunks of 4-bit weights and a rest, with sizes that fill no register exactly.
    private static func configuration(_ family: Family) -> MonetConfiguration {
        var c = smallConfiguration(family)
        (c.hiddenSize, c.attentionHeads, c.keyValueHeads, c.headWidth) = (164, 4, 2, 22)
        c.maxPositionEmbeddings = 160
        if c.experts != nil {
            c.experts = ExpertSettings(width: 10, heads: 3, perSide: 23, topK: 4, layersPerRouter: 2)
        }
        return c
    }

    private static func model(_ family: Family, _ storage: Storage) throws -> MonetLanguageModel {
        let model = try scrambledModel(configuration(family), seed: 12)
        switch storage {
        case .float32: return model
        case .packed: return try model.prepared(on: CPUBackend())
        default: break
        }
        return try withTemporaryFolder { folder in
            try Checkpoint.write(
                model, dtype: storage == .bfloat16 ? .bfloat16 : storage == .float16 ? .float16 : .float32,
                quantization: storage == .int8 ? .int8 : storage == .int4 ? .int4 : nil, to: folder)
            return try MonetLanguageModel.load(folder)
        }
    }

    private static var backends: [any Backend] {
        let kernels =
            Kernels.available.compactMap(Kernels.init(named:))
            + [true, false].map { Kernels(table: emulated_kernels(), bfloat16OutrunsFloat32: $0) }
        return kernels.flatMap { set in
            let backends = [(1, ComputePrecision.float32), (3, .bfloat16)].map {
                CPUBackend(
                    pool: WorkerPool(threadCount: $0.0), instructionSet: set, precision: $0.1,
                    isBatchInvariant: true)
            }
            return backends + [backends[1].forManyRows]
        }
    }

    private struct Runner {
        let model: MonetLanguageModel
        let backend: any Backend
        let cacheType: DType

        /// Logits of every token of the first sequence, read in pieces beside others.
        func logits(
            _ tokens: [Int32], pieces: [Int], beside others: [(tokens: [Int32], mask: UnitMask?)] = []
        )
            throws -> [[UInt32]]
        {
            var cache = KVCache(configuration: model.configuration, dtype: cacheType)
            var rows: [[UInt32]] = []
            for piece in pieces {
                let own = Array(tokens[rows.count..<(rows.count + piece)])
                let sequences =
                    others.map {
                        ForwardSequence(
                            $0.tokens, cache: KVCache(configuration: model.configuration, dtype: cacheType),
                            mask: $0.mask)
                    } + [ForwardSequence(own, cache: cache)]
                let output = try model.forward(ForwardInput(sequences), on: backend)
                cache = output.caches[others.count]
                let count = output.hidden.value.rowCount
                let hidden = output.hidden.value.slice((count - piece)..<count)
                let logits = try model.logits(hidden, on: backend)
                let values = logits.floats()
                rows += (0..<piece).map { row in
                    values[(row * logits.columnCount)..<((row + 1) * logits.columnCount)].map(\.bitPattern)
                }
            }
            return rows
        }
    }

    @Test(arguments: Family.allCases, Storage.allCases)
    func companyChangesNoBit(family: Family, storage: Storage) throws {
        let model = try Self.model(family, storage)
        var source = TensorSource(seed: 4)
        let tokens = source.ids(97, below: model.configuration.vocabularySize)
        var mask = UnitMask(model.units)
        mask.remove(0..<(model.units.unitsPerGroup / 2), group: 0)
        let others: [(tokens: [Int32], mask: UnitMask?)] = [
            (source.ids(1, below: 60), nil), (source.ids(33, below: 60), mask),
            (source.ids(2, below: 60), nil),
        ]
        for backend in Self.backends {
            for cacheType in storage == .packed ? [DType.float32, .bfloat16, .int8Rows] : [.float32] {
                let run = Runner(model: model, backend: backend, cacheType: cacheType)
                let whole = try run.logits(tokens, pieces: [97])
                try #require(whole.count == 97)
                let place = "\(backend.name), cache \(cacheType)"
                let steps = try run.logits(tokens, pieces: [70] + Array(repeating: 1, count: 27))
                #expect(steps == whole, "one by one: \(place)")
                #expect(
                    try run.logits(tokens, pieces: [2, 3, 65, 5, 1, 1, 17, 3]) == whole, "pieces: \(place)")
                #expect(try run.logits(tokens, pieces: [97], beside: others) == whole, "in a batch: \(place)")
                #expect(
                    try run.logits(tokens, pieces: [64, 1, 1, 1, 30], beside: others) == whole,
                    "pieces in a batch: \(place)")
            }
        }
    }
}
