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
