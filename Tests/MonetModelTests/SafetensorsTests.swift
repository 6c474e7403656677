import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

@Suite struct SafetensorsTests {
    /// The bytes of a file with this header and data.
    static func file(_ header: String, data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
        withUnsafeBytes(of: (length ?? UInt64(header.utf8.count)).littleEndian) { [UInt8]($0) }
            + Array(header.utf8) + data
    }

    static let good =
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[8,12]}}"#

    /// Bad files, and what the message must say beside the file's name.
    static let bad: [(name: String, bytes: [UInt8], says: String)] = [
        ("empty", [], "0 bytes"),
        ("short", [1, 2, 3], "too few"),
        ("header too long", file("{}", length: 200_000_000), "more than"),
        ("absurd length", file("{}", length: .max), "more than"),
        ("truncated header", file("{}", length: 90), "truncated"),
        ("no brace", file("[]"), "does not start"),
        ("malformed JSON", file(#"{"a":}"#), "header"),
        ("not UTF-8", file("{\"", data: [0xff, 0xfe, 34, 58, 49, 125], length: 8), "UTF-8"),
        ("truncated data", file(good, data: [UInt8](repeating: 0, count: 9)), "\"b\""),
        ("data beyond", file(good, data: [UInt8](repeating: 0, count: 13)), "follow"),
        (
            "overlap",
            file(
                #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                data: [UInt8](repeating: 0, count: 8)), "overlaps"
        ),
        (
            "gap",
            file(
                #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
                data: [UInt8](repeating: 0, count: 12)), "gap"
        ),
        (
            "backwards",
            file(#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, data: [0, 0, 0, 0]), "\"a\""
        ),
        ("negative", file(#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, data: []), "\"a\""),
        (
            "duplicate",
            file(
                #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                data: [0, 0, 0, 0]), "\"a\""
        ),
        (
            "unknown dtype", file(#"{"a":{"dtype":"F8_X","shape":[1],"data_offsets":[0,1]}}"#, data: [0]),
            "F8_X"
        ),
        (
            "wrong size",
            file(
                #"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
                data: [UInt8](repeating: 0, count: 8)), "12 bytes"
        ),
        (
            "absurd shape",
            file(
                #"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#,
                data: [UInt8](repeating: 0, count: 8)),
            "absurdly large"
        ),
        (
            "fractional shape",
            file(#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, data: [0, 0, 0, 0]), "\"a\""
        ),
        ("no offsets", file(#"{"a":{"dtype":"F32","shape":[1]}}"#), "data_offsets"),
        ("entry not an object", file(#"{"a":3}"#), "not an object"),
        ("metadata not strings", file(#"{"__metadata__":{"x":1}}"#), "__metadata__"),
    ]

    @Test(arguments: bad.indices)
    func badFilesAreErrorsThatNameThem(index: Int) throws {
        let (name, bytes, says) = Self.bad[index]
        try withTemporaryFolder { folder in
            let path = folder + "/bad.safetensors"
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            do {
                _ = try SafetensorsFile(path: path)
                Issue.record("\(name) was accepted")
            } catch {
                let text = "\(error)"
                #expect(text.contains("bad.safetensors"), "\(name): \(text)")
                #expect(text.contains(says), "\(name): \(text)")
            }
        }
    }

    @Test func roundTripIsByteIdentical() throws {
        try withTemporaryFolder { folder in
            var source = TensorSource(seed: 31)
            let tensors: [(name: String, tensor: Tensor)] = [
                ("half", source.normal([3, 5]).converted(to: .float16)), ("x.y", source.normal([7])),
                ("brain", source.normal([1, 3]).converted(to: .bfloat16)), ("count", Tensor(scalar: -3)),
                ("empty", source.normal([0, 4])), ("nan", Tensor([.nan, -.infinity, -0.0], shape: [3])),
                ("quote\" and \u{e9}", Tensor([1, 2] as [Int32], shape: [2])),
            ]
            let path = folder + "/a.safetensors"
            try SafetensorsWriter.write(tensors, metadata: ["format": "pt"], to: path)
            let file = try SafetensorsFile(path: path)
            #expect(file.metadata == ["format": "pt"])
            #expect(Set(file.entries.map(\.name)) == Set(tensors.map(\.name)))
            for (name, tensor) in tensors {
                let read = try file.tensor(name)
                #expect(read.shape == tensor.shape && read.dtype == tensor.dtype)
                #expect(read.withUnsafeBytes { [UInt8]($0) } == tensor.withUnsafeBytes { [UInt8]($0) })
            }
            #expect(throws: ModelError.missingTensor(file: path, tensor: "z")) { try file.tensor("z") }
            // Data that an odd header leaves unaligned is still read right.
            let odd = folder + "/odd.safetensors"
            let header = #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} "#
            try Data(Self.file(header, data: [0, 0, 128, 63, 0, 0, 0, 64])).write(
                to: URL(fileURLWithPath: odd))
            #expect(try SafetensorsFile(path: odd).tensor("a").floats() == [1, 2])
        }
    }

    @Test func anInterruptedWriteLeavesTheOldFile() throws {
        try withTemporaryFolder { folder in
            struct Stopped: Error {}
            let path = folder + "/file"
            try AtomicFile.write("old", to: path)
            #expect(throws: Stopped.self) {
                try AtomicFile.write(to: path) { writer in
                    try writer.write("new, but not")
                    throw Stopped()
                }
            }
            #expect(try TextFile.read(path) == "old")
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["file"])
        }
    }
}
