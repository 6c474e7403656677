import Foundation
import MonetFoundation

/// Relearning curves from their file.
enum RelearningPart {
    static func part(_ entry: ResultsFolder.Entry) throws -> ReportPart {
        let curves = try entry.require(entry.content["curves"]?.arrayValue, "\"curves\"").map { curve in
            RelearningReport.Curve(
                name: try entry.require(curve["name"]?.stringValue, "a curve's \"name\""),
                removed: curve["removed"]?.intValue ?? 0,
                points: try entry.require(curve["points"]?.arrayValue, "a curve's \"points\"").map { point in
                    .init(
                        tokens: Int(try entry.number(point["tokens"], "a point's \"tokens\"")),
                        values: try ["accuracy", "loss", "others_accuracy", "others_loss"].map {
                            try entry.number(point[$0], "a point's \"\($0)\"")
                        })
                })
        }
        let original = (entry.content["original"]?.arrayValue ?? []).compactMap(\.doubleValue)
        let lengths = Dictionary(grouping: curves, by: \.name).values.map { Set($0.map(\.points.count)) }
        guard original.count == 4, !curves.isEmpty, lengths.allSatisfy({ $0.count == 1 && !$0.contains(0) }),
            Set(curves.map(\.points.count)).count == 1
        else { throw EvaluationError.malformedResults(path: entry.path, reason: "its curves are incomplete") }
        let report = RelearningReport(
            curves: curves, original: original, level: entry.content["level"]?.doubleValue ?? 1,
            what: "documents to be forgotten")
        return ReportPart(
            title: entry.name, pictures: [report.plot(title: "Accuracy over tokens of fine-tuning").svg()],
            tables: [report.summaryTable])
    }
}
