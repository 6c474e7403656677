import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// The exported files against the index and a trace; Scripts/check-exports opens them with the other tools' own readers.
@Suite struct ExportTests {
    private func withIndex(_ body: (String, ExpertIndex, MonetLanguageModel) throws -> Void) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            #expect(try ExpertIndexTests.builder(model, documents).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model, writable: true)
            try body(folder, index, model)
        }
    }

    private func files(_ folder: String) -> [String] {
        (FileManager.default.subpaths(atPath: folder) ?? []).filter {
            $0.contains(".") && !$0.hasSuffix(".moe")
        }
        .filter { !FileManager.default.isFolder(folder + "/" + $0) }.sorted()
    }

    @Test func batchesForSAEDashboard() throws {
        try withIndex { folder, index, model in
            var settings = DossierExport.Settings(model: "tiny.model")
            (settings.minimumCount, settings.context) = (3, 4)
            let export = try DossierExport(index, model: model, settings: settings)
            try export.writeSAEDashboard(to: folder + "/out")
            let groups = index.units.groups
            #expect(files(folder + "/out").count == 2 * groups, "a batch of 100 pairs and what was skipped")
            var seen = 0
            for group in 0..<groups {
                let layer = index.units.layersOfGroup[group].lowerBound
                let own = folder + "/out/\(layer)-monet-experts"
                let json = try JSONValue(contentsOfFile: own + "/batch-0.json")
                #expect(json["model_id"] == "tiny-model" && json["layer"]?.intValue == layer)
                let features = try #require(json["features"]?.arrayValue)
                let expected = try index.experts(group: group, minimumCount: 3).map(\.index).sorted()
                #expect(features.compactMap { $0["feature_index"]?.intValue } == expected)
                let skipped = try JSONValue(contentsOfFile: own + "/skipped_indexes.json")
                #expect(
                    Set(skipped["skipped_indexes"]?.arrayValue?.compactMap(\.intValue) ?? [])
                        == Set(0..<100).subtracting(expected))
                for feature in features {
                    let unit = UnitID(group: group, index: feature["feature_index"]?.intValue ?? -1)
                    var dossier = try index.dossier(of: unit, context: 4)
                    try index.measureContexts(of: &dossier, model: model)
                    #expect(feature["frac_nonzero"]?.doubleValue == dossier.frequency)
                    let heights =
                        feature["freq_hist_data_bar_heights"]?.arrayValue?.compactMap(\.doubleValue) ?? []
                    #expect(Int(heights.reduce(0, +)) == dossier.count)
                    let activations = feature["activations"]?.arrayValue ?? []
                    let contexts = dossier.activations + dossier.samples.flatMap(\.activations)
                    #expect(activations.count == contexts.count)
                    for (activation, context) in zip(activations, contexts) {
                        let values = activation["values"]?.arrayValue?.compactMap(\.doubleValue) ?? []
                        // A window runs beside others in another order, which changes sums in float32.
                        #expect(zip(values, context.scores ?? []).allSatisfy { abs($0 - $1) < 1e-5 })
                        #expect(values.count == context.pieces.count)
                        #expect(activation["qualifying_token_index"]?.intValue == context.place)
                        seen += 1
                    }
                }
            }
            #expect(seen > 100)
        }
    }

    @Test func theTreeOfNeuronpedia() throws {
        try withIndex { folder, index, model in
            let unit = try index.experts(group: 0)[0]
            try index.replaceExplanations(
                of: unit, by: [.init(text: "a rock", prompt: "x: 1", isCredible: true)])
            try index.replaceExplanations(
                of: unit,
                by: [
                    .init(text: "the sea", prompt: "y: 1", isCredible: true),
                    .init(text: "noise", prompt: "y: 2", isCredible: false),
                ]
            ) { $0.prompt.hasPrefix("y") }
            #expect(try index.explanations(of: unit).map(\.text) == ["a rock", "the sea", "noise"])
            try index.replaceExplanations(of: unit, by: []) { $0.prompt.hasPrefix("x") }
            var settings = DossierExport.Settings(model: "tiny")
            (settings.groups, settings.minimumCount, settings.measuresEffects) = ([0], 1, true)
            try DossierExport(index, model: model, settings: settings).writeNeuronpedia(to: folder + "/out")
            let own = folder + "/out/tiny/0-monet-experts"
            #expect(
                files(folder + "/out").map { String($0.dropFirst("tiny/0-monet-experts/".count)) } == [
                    "activations/batch-0.jsonl.gz", "explanations/batch-0.jsonl.gz",
                    "features/batch-0.jsonl.gz",
                    "model.jsonl", "release.jsonl", "source.jsonl", "sourceset.jsonl",
                ])
            func rows(_ name: String) throws -> [JSONValue] {
                let text = try unzipped(own + "/\(name)/batch-0.jsonl.gz")
                return try text.split(separator: "\n").map {
                    try JSONValue(parsing: String($0), source: name)
                }
            }
            let features = try rows("features")
            #expect(features.count == (try index.experts(group: 0)).count)
            let keys = Set(features[0].members?.map(\.key) ?? [])
            #expect(features.allSatisfy { Set($0.members?.map(\.key) ?? []) == keys })
            #expect(features.contains { !($0["pos_str"]?.arrayValue ?? []).isEmpty })
            let explanations = try rows("explanations")
            #expect(explanations.count == 1 && explanations[0]["description"] == "the sea")
            for row in try rows("activations") {
                let values = row["values"]?.arrayValue?.compactMap(\.doubleValue) ?? []
                #expect(row["maxValue"]?.doubleValue == values.max())
                #expect(values[row["maxValueTokenIndex"]?.intValue ?? 0] == values.max())
                #expect(values[row["qualifyingTokenIndex"]?.intValue ?? 0] > 0)
            }
        }
    }

    /// gzip itself, which any system has, reads the file.
    private func unzipped(_ path: String) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["gzip", "-dc", path]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        return String(decoding: data, as: UTF8.self)
    }

    @Test(arguments: [1, 3])
    func aCacheForDelphi(splits: Int) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let lines = (0..<3).map { number in
                #"{"text": "\#((0..<40).map { ["sea", "ship", "law"][($0 + number) % 3] }.joined(separator: " "))"}"#
            }
            try AtomicFile.write(lines.joined(separator: "\n"), to: folder + "/lines.jsonl")
            let documents = try LabelledDocuments(
                sources: [.init(path: folder + "/lines.jsonl")],
                tokenizer: .init(path: Fixture.path("text/trained.model")))
            #expect(try ExpertIndexTests.builder(model, documents).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            var settings = DelphiExport.Settings(model: "tiny")
            (settings.context, settings.splits) = (32, splits)
            try DelphiExport(index, model: model, settings: settings).write(to: folder + "/out")
            let stream = (0..<documents.count).flatMap { documents.tokens($0) }
            let count = stream.count / 32
            #expect(count >= 3)
            for group in 0..<index.units.groups {
                let own = folder + "/out/latents/layers.\(index.units.layersOfGroup[group].lowerBound).moe"
                #expect(try JSONValue(contentsOfFile: own + "/config.json")["cache_ctx_len"] == 32)
                var found: [[Double]] = []
                for split in 0..<splits {
                    let (first, last) = (split * 100 / splits, (split + 1) * 100 / splits - 1)
                    let arrays = try RawTensors(path: own + "/\(first)_\(last).safetensors")
                    #expect(arrays.integers("tokens").map { Int32($0) } == Array(stream.prefix(32 * count)))
                    let (locations, activations) = (
                        arrays.integers("locations"), arrays.halves("activations")
                    )
                    #expect(locations.count == 3 * activations.count)
                    for (row, value) in activations.enumerated() {
                        found.append(
                            locations[(3 * row)..<(3 * row + 3)].map(Double.init) + [Double(first), value])
                    }
                }
                // Every score of a forward pass over each sequence alone.
                var expected = 0
                let table = Dictionary(
                    uniqueKeysWithValues: found.map {
                        ("\(Int($0[0])) \(Int($0[1])) \(Int($0[2] + $0[3]))", $0[4])
                    })
                for sequence in 0..<count {
                    var input = ForwardInput([Array(stream[(32 * sequence)..<(32 * sequence + 32)])])
                    input.keepsUnits = true
                    for units in try model.forward(input).groups where units.group == group {
                        var reader = units.reader()
                        for row in 0..<32 {
                            reader.visit(row) { unit, score in
                                guard score > 1e-5 else { return }
                                expected += 1
                                // float16 keeps 11 bits.
                                let value = table["\(sequence) \(row) \(unit)"] ?? .nan
                                #expect(abs(value - Double(score)) < 1e-3 * Double(score) + 1e-5)
                            }
                        }
                    }
                }
                #expect(expected == found.count && expected > 0)
            }
        }
    }

    @Test func badInput() throws {
        try withIndex { folder, index, model in
            var delphi = DelphiExport.Settings(model: "tiny")
            for context in [0, 33, 96] {
                delphi.context = context
                #expect(throws: InsightError.self) { try DelphiExport(index, model: model, settings: delphi) }
            }
            delphi = DelphiExport.Settings(model: "tiny")
            (delphi.context, delphi.splits) = (32, 101)
            #expect(throws: InsightError.self) { try DelphiExport(index, model: model, settings: delphi) }
            var settings = DossierExport.Settings(model: "tiny")
            settings.groups = [7]
            #expect(throws: InsightError.self) { try DossierExport(index, model: model, settings: settings) }
            settings.groups = nil
            var other = smallConfiguration(.vertical)
            other.vocabularySize = model.configuration.vocabularySize
            let stranger = try scrambledModel(other, seed: 99)
            #expect(throws: InsightError.self) {
                try DossierExport(index, model: stranger, settings: settings)
            }
            let export = try DossierExport(index, model: model, settings: settings)
            #expect(throws: CancellationError.self) {
                try export.writeNeuronpedia(to: folder + "/stopped") { _, _ in false }
            }
            #expect(!FileManager.default.fileExists(atPath: folder + "/stopped"))
            try export.writeSAEDashboard(to: folder + "/there")
            #expect(throws: FileError.self) { try export.writeSAEDashboard(to: folder + "/there") }
        }
    }
}

/// Arrays of a safetensors file in types that the package does not read.
private struct RawTensors {
    private let bytes: [UInt8]
    private let header: JSONValue
    private let start: Int

    init(path: String) throws {
        bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        let length = bytes.withUnsafeBytes { Int($0.loadUnaligned(as: UInt64.self)) }
        header = try JSONValue(
            parsing: String(decoding: bytes[8..<(8 + length)], as: UTF8.self), source: path)
        start = 8 + length
    }

    private func part(_ name: String) -> (type: String, bytes: ArraySlice<UInt8>) {
        let ends = header[name]?["data_offsets"]?.arrayValue?.compactMap(\.intValue) ?? [0, 0]
        return (header[name]?["dtype"]?.stringValue ?? "", bytes[(start + ends[0])..<(start + ends[1])])
    }

    func integers(_ name: String) -> [Int] {
        let (type, part) = part(name)
        let width = ["U16": 2, "U32": 4, "I64": 8][type] ?? 1
        return stride(from: part.startIndex, to: part.endIndex, by: width).map { place in
            part[place..<(place + width)].reversed().reduce(0) { $0 << 8 | Int($1) }
        }
    }

    func halves(_ name: String) -> [Double] {
        let part = part(name).bytes
        return stride(from: part.startIndex, to: part.endIndex, by: 2).map { place in
            Double(Tensor.half(UInt16(part[place]) | UInt16(part[place + 1]) << 8))
        }
    }
}

extension Tensor {
    /// The number that 16 bits of IEEE 754's binary16 stand for.
    fileprivate static func half(_ bits: UInt16) -> Float {
        let (exponent, fraction) = (Int(bits >> 10 & 31), Float(bits & 1023) / 1024)
        let size = exponent == 0 ? fraction * 0x1p-14 : (1 + fraction) * Float(exp2(Double(exponent - 15)))
        return bits >> 15 == 1 ? -size : size
    }
}

extension FileManager {
    fileprivate func isFolder(_ path: String) -> Bool {
        var isFolder: ObjCBool = false
        return fileExists(atPath: path, isDirectory: &isFolder) && isFolder.boolValue
    }
}
