import Foundation
import MonetFoundation
import TestSupport
import Testing

@Suite struct FileWriterTests {
    /// Pieces that end before, at and after the multiples of 2 MB at which writes end, appended files too.
    @Test(arguments: [
        [1], [5, 1 << 21], [(1 << 21) - 3, 3, 7], [3 << 21, 1], [9, 5 << 21, 0, 1 << 16, 1],
        [(1 << 21) + 1, 1 << 21],
    ])
    func writesInBlocks(pieces: [Int]) throws {
        try withTemporaryFolder { folder in
            let total = pieces.reduce(0, +)
            let bytes = (0..<total).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
            let path = folder + "/whole"
            var start = 0
            try AtomicFile.write(to: path) { writer in
                for piece in pieces {
                    try writer.write(Array(bytes[start..<(start + piece)]))
                    start += piece
                }
            }
            #expect(FileManager.default.contents(atPath: path) == Data(bytes))
            start = 0
            for piece in pieces {
                let writer = try FileWriter(path: folder + "/pieces", appending: true)
                try writer.write(Array(bytes[start..<(start + piece)]))
                start += piece
                try writer.finish()
            }
            #expect(FileManager.default.contents(atPath: folder + "/pieces") == Data(bytes))
        }
    }

    /// What is flushed is in the file, whether or not a block is full.
    @Test func flushesPartsOfBlocks() throws {
        try withTemporaryFolder { folder in
            let writer = try FileWriter(path: folder + "/log")
            try writer.write("first line\n")
            #expect(FileManager.default.contents(atPath: folder + "/log") == Data())
            try writer.flush()
            #expect(FileManager.default.contents(atPath: folder + "/log") == Data("first line\n".utf8))
            try writer.finish()
        }
    }
}
