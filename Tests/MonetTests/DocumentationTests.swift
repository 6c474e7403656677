import Foundation
import Testing

/// Examples in doc comments and in the README are code that compiles: each stands in `DocumentationExamples.swift`.
@Suite struct DocumentationTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    /// Lines without the spaces around them.
    private static func lines(_ path: String) throws -> [String] {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
            .split(separator: "\n", omittingEmptySubsequences: false)
            .map { $0.trimmingCharacters(in: .whitespaces) }
    }

    /// The indented blocks of doc comments that follow an empty comment line; equations are no code.
    private static func examples(_ lines: [String]) -> [[String]] {
        var result: [[String]] = []
        var block: [String] = []
        var followsBlank = false
        for line in lines + [""] {
            if line.hasPrefix("///     "), followsBlank || !block.isEmpty {
                block.append(line.dropFirst(8).trimmingCharacters(in: .whitespaces))
            } else {
                if !block.isEmpty, !block.contains(where: { $0.contains("Σ") }) { result.append(block) }
                block = []
            }
            followsBlank = line == "///"
        }
        return result
    }

    private static func sources() throws -> [String] {
        let folder = root.appendingPathComponent("Sources").path
        let names = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
        return names.filter { $0.hasSuffix(".swift") }.map { "Sources/" + $0 }.sorted()
    }

    @Test func examplesOfCommentsCompile() throws {
        let compiled = try Self.lines("Tests/MonetTests/DocumentationExamples.swift")
        var found = 0
        for path in try Self.sources() {
            for example in Self.examples(try Self.lines(path)) {
                found += 1
                let isThere = compiled.indices.contains { compiled[$0...].starts(with: example) }
                #expect(isThere, "\(path): \(example.joined(separator: "\n"))")
            }
        }
        #expect(found > 15)
    }

    @Test func exampleOfTheReadmeCompiles() throws {
        let compiled = try Self.lines("Tests/MonetTests/DocumentationExamples.swift")
        let readme = try Self.lines("README.md")
        let start = try #require(readme.firstIndex(of: "```swift"))
        let end = try #require(readme[start...].firstIndex(of: "```"))
        let example = Array(readme[(start + 1)..<end])
        #expect(example.count > 2)
        #expect(compiled.indices.contains { compiled[$0...].starts(with: example) })
    }
}
