import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetProcesses
import MonetText
import TestSupport
import Testing

/// What several processes read together is what one reads, bit for bit, also after a pause and with another number.
@Suite struct SharedWorkTests {
    private static func bytes(_ path: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: path))
    }

    @Test(arguments: [Family.vertical, .dense]) func indicesAreTheSame(family: Family) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model(family)
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            func build(_ processes: Int, _ name: String, stopAfter limit: Int = .max) throws -> [Bool] {
                try ThreadProcesses(count: processes).run { communicator in
                    var count = 0
                    return try ExpertIndexTests.builder(model, documents).build(
                        at: folder + "/" + name, communicator: communicator
                    ) { _ in
                        count += 1
                        return count < limit
                    }
                }
            }
            #expect(try build(1, "1.sqlite") == [true])
            for processes in [2, 3, 7] {
                let name = "\(processes).sqlite"
                #expect(try build(processes, name).allSatisfy { $0 })
                #expect(
                    try Self.bytes(folder + "/" + name) == Self.bytes(folder + "/1.sqlite"), "\(processes)")
            }
            #expect(try build(3, "parts.sqlite", stopAfter: 2) == [false, false, false])
            #expect(try build(2, "parts.sqlite", stopAfter: 3) == [false, false])
            #expect(try build(1, "parts.sqlite") == [true])
            #expect(try Self.bytes(folder + "/parts.sqlite") == Self.bytes(folder + "/1.sqlite"))
        }
    }

    @Test(arguments: ActivationExport.Format.allCases)
    func activationsAreTheSame(format: ActivationExport.Format) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            func export(_ processes: Int, _ name: String, stopAfter limit: Int = .max) throws -> [Bool] {
                try ThreadProcesses(count: processes).run { communicator in
                    var count = 0
                    let reader = try ActivationReader(
                        model: model, documents: documents,
                        ActivationSelection(
                            units: .all, hooks: [HookPoint(.residPost, layer: 1), HookPoint(.z, layer: 0)]),
                        window: 12, batchTokens: 20)
                    return try ActivationExport(reader, format: format, shardBytes: 6000, modelPath: "model")
                        .write(
                            to: folder + "/" + name, communicator: communicator
                        ) { _ in
                            count += 1
                            return count < limit
                        }
                }
            }
            func files(_ name: String) throws -> [String: Data] {
                let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/" + name)
                return try Dictionary(
                    uniqueKeysWithValues: names.filter { !$0.hasPrefix(".") }.map {
                        ($0, try Self.bytes(folder + "/\(name)/" + $0))
                    })
            }
            #expect(try export(1, "1") == [true])
            let expected = try files("1")
            #expect(expected.count > 3)
            for processes in [2, 3, 5] {
                #expect(try export(processes, "\(processes)").allSatisfy { $0 })
                #expect(try files("\(processes)") == expected, "\(processes)")
            }
            #expect(try export(3, "parts", stopAfter: 4) == [false, false, false])
            #expect(try export(2, "parts") == [true, true])
            let manifest = try JSONValue(contentsOfFile: folder + "/parts/manifest.json")
            #expect(manifest["is_complete"] == true)
            #expect(manifest["tokens"]?.intValue == documents.tokenCount)
        }
    }

    /// A request to stop that reaches any one process stops all of them, and what was done is kept.
    @Test func anyProcessStopsAll() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            let path = folder + "/i.sqlite"
            #expect(
                try ExpertIndexTests.builder(model, documents, batchTokens: 12).build(
                    at: folder + "/whole.sqlite"))
            for rank in 0..<3 {
                let isComplete = try ThreadProcesses(count: 3).run { communicator in
                    try ExpertIndexTests.builder(model, documents, batchTokens: 12).build(
                        at: path, communicator: communicator, isCancelled: { communicator.rank == rank })
                }
                #expect(isComplete == [false, false, false])
                #expect(FileManager.default.fileExists(atPath: path + ".partial"))
            }
            // Each of the three has read its batches, so that one process has fewer of them left.
            var batches = 0
            #expect(
                try ExpertIndexTests.builder(model, documents, batchTokens: 12).build(at: path) { progress in
                    if progress.phase == .reading { batches += 1 }
                    return true
                })
            var allBatches = 0
            #expect(
                try ExpertIndexTests.builder(model, documents, batchTokens: 12).build(
                    at: folder + "/again.sqlite"
                ) {
                    progress in
                    if progress.phase == .reading { allBatches += 1 }
                    return true
                })
            #expect(batches == allBatches - 9)
            #expect(try Self.bytes(path) == Self.bytes(folder + "/whole.sqlite"))

            func export(_ name: String, cancelledAt rank: Int?) throws -> [Bool] {
                try ThreadProcesses(count: 3).run { communicator in
                    let reader = try ActivationReader(
                        model: model, documents: documents, ActivationSelection(units: .all, hooks: []),
                        window: 12, batchTokens: 20)
                    return try ActivationExport(
                        reader, format: .safetensors, shardBytes: 6000, modelPath: "model"
                    ).write(
                        to: folder + "/" + name, communicator: communicator,
                        isCancelled: { communicator.rank == rank })
                }
            }
            var tokens = 0
            for rank in 0..<3 {
                #expect(try export("stopped", cancelledAt: rank) == [false, false, false])
                let manifest = try JSONValue(contentsOfFile: folder + "/stopped/manifest.json")
                #expect(manifest["is_complete"] == false)
                #expect(manifest["tokens"]?.intValue ?? 0 > tokens)
                tokens = manifest["tokens"]?.intValue ?? 0
            }
            #expect(try export("stopped", cancelledAt: nil) == [true, true, true])
            let manifest = try JSONValue(contentsOfFile: folder + "/stopped/manifest.json")
            #expect(manifest["tokens"]?.intValue == documents.tokenCount)
        }
    }

    /// Contributions of any size arrive whole and in the order of ranks, in however many pieces they travel.
    @Test(arguments: [1, 7, 64, 1 << 30]) func collectsInPieces(pieceBytes: Int) throws {
        let sizes = [5, 0, 64, 200]
        let bodies = sizes.enumerated().map { rank, size in
            Data((0..<size).map { UInt8(truncatingIfNeeded: 31 * $0 + rank) })
        }
        let found = try ThreadProcesses(count: 4).run { communicator in
            // A slice, whose indices do not begin at zero.
            let own = (Data([1, 2, 3]) + bodies[communicator.rank]).dropFirst(3)
            return try communicator.collect(own, pieceBytes: pieceBytes)
        }
        #expect(found == [bodies, [], [], []])
    }

    /// A process that sends something else ends the work with a message.
    @Test func nonsenseIsRefused() throws {
        var encoder = NumberEncoder()
        encoder.append([Int32(3), -1])
        encoder.append([Float(0.5)])
        encoder.append([Int]())
        var decoder = NumberDecoder(encoder.data, rank: 1)
        #expect(try decoder.next(Int32.self) == [3, -1])
        #expect(try decoder.next(Float.self) == [0.5])
        #expect(try decoder.next(Int.self) == [])
        #expect(throws: ProcessError.self) { try decoder.next(Int.self) }
        for count in 0..<encoder.data.count {
            var short = NumberDecoder(encoder.data.prefix(count), rank: 1)
            #expect(throws: ProcessError.self) {
                _ = try (short.next(Int32.self), short.next(Float.self), short.next(Int.self))
            }
        }
        var huge = NumberDecoder(Data([255, 255, 255, 255, 255, 255, 255, 255, 1]), rank: 2)
        #expect(throws: ProcessError.self) { try huge.next(Float.self) }
    }
}
