import Foundation
import MonetFoundation

/// The results of measurements in a folder, told apart by what they hold: what `monet eval --output` writes, and what
/// `unlearn-matrix`, `unlearn`, `toxicity measure` and `monosemanticity` print with `--json`.
struct ResultsFolder {
    /// A kind of results, in the order in which they are reported.
    enum Kind: Int, CaseIterable {
        case evaluation, matrix, examination, relearning, toxicity, monosemanticity
    }

    /// A file of results.
    struct Entry {
        let kind: Kind
        /// The path below the folder, without `.json`.
        let name: String
        let path: String
        let content: JSONValue
    }

    /// The results, ordered by kind, then by name.
    let entries: [Entry]
    /// Files that hold JSON of another kind.
    let others: [String]

    /// Larger files are no results.
    private static let mostBytes = 64 << 20

    /// Reads all `.json` files of a folder and of those below.
    ///
    /// - Throws: `FileError`, `EvaluationError.malformedResults` for a file that is not JSON, and for a folder
    ///   without results.
    init(_ folder: String) throws {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue,
            let names = FileManager.default.enumerator(atPath: folder)
        else { throw FileError.unreadable(path: folder, reason: "there is no such folder") }
        var (entries, others): ([Entry], [String]) = ([], [])
        for name in names.compactMap({ $0 as? String }).sorted() where name.hasSuffix(".json") {
            let path = folder + "/" + name
            let size = (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
            guard size <= Self.mostBytes else {
                others.append("\(name) (\(size >> 20) MiB)")
                continue
            }
            let content: JSONValue
            do { content = try JSONValue(contentsOfFile: path) } catch {
                throw EvaluationError.malformedResults(path: path, reason: "\(error)")
            }
            if let kind = Self.kind(of: content) {
                entries.append(
                    Entry(kind: kind, name: String(name.dropLast(5)), path: path, content: content))
            } else {
                others.append(name)
            }
        }
        guard !entries.isEmpty else {
            throw EvaluationError.malformedResults(
                path: folder,
                reason:
                    "it has no .json file with results, as monet eval --output DIR writes them, or unlearn-matrix, "
                    + "unlearn, toxicity measure and monosemanticity print them with --json")
        }
        self.entries = entries.sorted { ($0.kind.rawValue, $0.name) < ($1.kind.rawValue, $1.name) }
        self.others = others
    }

    func entries(_ kind: Kind) -> [Entry] { entries.filter { $0.kind == kind } }

    private static func kind(of content: JSONValue) -> Kind? {
        if let list = content.arrayValue {
            return list.first?["measured"] != nil || list.first?["token_concentration"] != nil
                ? .monosemanticity : nil
        }
        if content["configs"]?.members != nil, content["results"]?.members != nil { return .evaluation }
        if content["experts"]?["labels"] != nil, content["ratio"] != nil { return .matrix }
        if content["subjects"]?.members != nil { return .examination }
        if content["curves"]?.arrayValue != nil, content["original"] != nil { return .relearning }
        if content["protocol"] != nil, content["results"]?.arrayValue != nil { return .toxicity }
        return nil
    }
}
