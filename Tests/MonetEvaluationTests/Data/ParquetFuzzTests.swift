import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// Files from strangers: whatever they hold, reading them ends in rows or in an error.
@Suite struct ParquetFuzzTests {
    /// All fixtures, also the damaged ones, one mutation away from which others lie.
    private static func seeds() throws -> [[UInt8]] {
        let folders = [ParquetTests.folder, ParquetTests.folder + "/refused"]
        return try folders.flatMap { folder in
            try ParquetTests.names(in: folder).map {
                [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\($0).parquet")))
            }
        }
    }

    /// Reads bytes as a file.
    ///
    /// - Returns: whether they are read.
    private static func read(_ bytes: [UInt8], in folder: String) throws -> Bool {
        let path = folder + "/mutated.parquet"
        // A file that is written over waits for the disk.
        try? FileManager.default.removeItem(atPath: path)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        do {
            let file = try ParquetFile(path: path)
            let rows = try file.rows()
            #expect(rows.count == file.rowCount)
            for row in rows.prefix(3) {
                #expect(row.members?.map(\.key) == file.columns)
                _ = row.serialized()
            }
            return true
        } catch is ParquetError { return false } catch is FileError { return false }
    }

    /// A few bytes changed or cut out. The footer says where it is from the end on, and where pages are from the
    /// start on: most changes keep the size, so that they reach what is inside.
    private static func mutated(_ seed: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
        func below(_ limit: Int) -> Int { Int(random.next() % UInt64(max(1, limit))) }
        var bytes = seed
        guard bytes.count > 12 else { return bytes }
        let footer = bytes[(bytes.count - 8)..<(bytes.count - 4)].reversed().reduce(0) { $0 << 8 | Int($1) }
        let footerStart = max(4, min(bytes.count, bytes.count - 8 - footer))
        for _ in 0...below(4) {
            let place =
                switch below(4) {
                case 0: footerStart + below(bytes.count - footerStart)
                // Where the first page's header and levels are.
                case 1: min(4 + below(60), bytes.count - 1)
                default: below(bytes.count)
                }
            switch below(8) {
            case 0...2: bytes[place] ^= 1 << UInt8(below(8))
            case 3: bytes[place] = UInt8(below(256))
            case 4: bytes[place] = [0, 1, 0x7f, 0x80, 0xff, 2, 3, 0xfe][below(8)]
            case 5: bytes[place] &+= UInt8(below(2) == 0 ? 2 : 254)
            case 6:
                // A number of several bytes that is as large as can be.
                for next in place..<min(bytes.count, place + below(9)) { bytes[next] = 0xff }
            default:
                let other = below(bytes.count)
                let count = min(below(24), bytes.count - max(place, other))
                bytes.replaceSubrange(place..<(place + count), with: Array(bytes[other..<(other + count)]))
            }
        }
        return bytes
    }

    @Test func alteredFiles() throws {
        let seeds = try Self.seeds()
        try withTemporaryFolder { folder in
            var random = SplitMix64(seed: 21)
            var read = 0
            let count = 4000 * Mutator.factor
            for round in 0..<count {
                let bytes =
                    round % 8 == 0
                    ? Mutator.mutated(
                        seeds, tokens: ["PAR1", "PARE", "\u{15}\u{0}", "\u{0}\u{0}\u{0}\u{1}"], &random)
                    : Self.mutated(seeds[Int(random.next() % UInt64(seeds.count))], &random)
                if try Self.read(bytes, in: folder) { read += 1 }
            }
            // Many changes are to values, which may be others; most are to what holds them together.
            #expect(read > count / 20 && read < count / 2, "\(read) of \(count) are read")
        }
    }

    /// No beginning of a file is a file.
    @Test func truncatedFiles() throws {
        try withTemporaryFolder { folder in
            for name in ["two-levels", "pages.dictionary", "zone.berlin"] {
                let path = "\(ParquetTests.folder)/\(name).parquet"
                let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
                #expect(try Self.read(whole, in: folder))
                for count in whole.indices {
                    #expect(try !Self.read(Array(whole[..<count]), in: folder), "\(count) bytes of \(name)")
                }
            }
        }
    }

    /// Every byte of a small file, with many values.
    @Test func alteredBytes() throws {
        try withTemporaryFolder { folder in
            let path = "\(ParquetTests.folder)/two-parts.parquet"
            let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            for place in whole.indices {
                for value in stride(from: UInt8(place % 10), to: 250, by: Mutator.factor > 1 ? 1 : 10) {
                    var bytes = whole
                    bytes[place] = value
                    _ = try Self.read(bytes, in: folder)
                }
            }
        }
    }
}
