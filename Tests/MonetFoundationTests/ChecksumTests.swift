import Foundation
import MonetFoundation
import TestSupport
import Testing

@Suite struct ChecksumTests {
    /// A file's checksum is that of its bytes, in whatever pieces it is read.
    @Test(arguments: [0, 1, 31, 32, 33, 1 << 20, (1 << 20) + 5, 3_000_001])
    func filesHaveTheChecksumOfTheirBytes(count: Int) throws {
        try withTemporaryFolder { folder in
            var bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 131 &+ $0 >> 7) }
            let path = folder + "/file"
            func checksum() throws -> String {
                try Data(bytes).write(to: URL(fileURLWithPath: path))
                let found = try Checksum(contentsOfFile: path).text
                #expect(bytes.withUnsafeBytes { Checksum(of: $0).text } == found)
                return found
            }
            let whole = try checksum()
            guard count > 0 else { return }
            bytes[count / 2] ^= 1
            #expect(try checksum() != whole)
        }
    }

    @Test func filesThatCannotBeReadAreNamed() throws {
        for path in ["/nowhere/file", "/tmp"] {
            do {
                _ = try Checksum(contentsOfFile: path)
                Issue.record("\(path) was read")
            } catch let error as FileError {
                #expect("\(error)".contains(path))
            }
        }
    }
}
