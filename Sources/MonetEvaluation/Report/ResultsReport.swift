import Foundation
import MonetFoundation

/// All results of a folder in one document: benchmarks, unlearning, toxicity, monosemanticity.
public struct ResultsReport {
    private let folder: ResultsFolder
    private let path: String

    /// Reads the results of a folder.
    ///
    /// - Throws: `FileError`, `EvaluationError.malformedResults`.
    public init(folder path: String) throws {
        self.path = path
        folder = try ResultsFolder(path)
    }

    /// What was found and what was left out, in a line each.
    public var summary: [String] {
        ResultsFolder.Kind.allCases.compactMap { kind in
            let count = folder.entries(kind).count
            return count == 0 ? nil : "\(Self.heading(kind)): \(count)"
        } + (folder.others.isEmpty ? [] : ["not results: \(folder.others.joined(separator: ", "))"])
    }

    private static func heading(_ kind: ResultsFolder.Kind) -> String {
        switch kind {
        case .evaluation: "Benchmarks"
        case .matrix: "Removing what a label's experts know"
        case .examination: "What is still known after unlearning"
        case .relearning: "Learning it again"
        case .toxicity: "Toxicity"
        case .monosemanticity: "Monosemanticity"
        }
    }

    /// The document.
    ///
    /// - Throws: `EvaluationError.malformedResults` for results that lack what they should have.
    public func page(title: String, origin: PageOrigin) throws -> String {
        var sections: [String] = []
        for kind in ResultsFolder.Kind.allCases {
            let entries = folder.entries(kind)
            if entries.isEmpty { continue }
            let parts: [ReportPart]
            switch kind {
            case .evaluation: parts = [EvaluationPart(entries).part]
            case .matrix: parts = try entries.map(MatrixPart.part)
            case .examination: parts = try entries.map(ListPart.examination)
            case .relearning: parts = try entries.map(RelearningPart.part)
            case .toxicity: parts = try entries.map(ListPart.toxicity)
            case .monosemanticity: parts = try entries.map(ListPart.monosemanticity)
            }
            sections.append("<h2>\(Self.heading(kind).htmlEscaped)</h2>" + parts.map(\.html).joined())
        }
        let notes =
            folder.others.isEmpty
            ? [] : ["Not read, because they hold no results: \(folder.others.joined(separator: ", "))."]
        return ReportPage.html(
            title: title, lead: [], sections: sections, definitions: notes, style: HeatMap.style,
            origin: origin)
    }
}

/// One part of a report: sentences, pictures, tables.
struct ReportPart {
    var title: String?
    var sentences: [String] = []
    /// SVG, or HTML of heat maps.
    var pictures: [String] = []
    var tables: [[[String]]] = []

    var html: String {
        (title.map { "<h3>\($0.htmlEscaped)</h3>" } ?? "")
            + sentences.map { "<p>\($0.htmlEscaped)</p>" }.joined()
            + pictures.map { $0.contains("<svg") ? ReportPage.figure($0) : $0 }.joined()
            + tables.map { ReportPage.table($0) }.joined()
    }
}

extension ResultsFolder.Entry {
    /// A number that results can have.
    ///
    /// - Throws: `EvaluationError.malformedResults` for what is none, and for one that is too large to be shown.
    func number(_ value: JSONValue?, _ what: String) throws -> Double {
        let number = try require(value?.doubleValue, what)
        guard abs(number) <= 1e12 else {
            throw EvaluationError.malformedResults(path: path, reason: "\(what) is \(number)")
        }
        return number
    }

    /// - Throws: `EvaluationError.malformedResults` for what is not there.
    func require<Value>(_ value: Value?, _ what: String) throws -> Value {
        guard let value else {
            throw EvaluationError.malformedResults(path: path, reason: "it lacks \(what)")
        }
        return value
    }
}
