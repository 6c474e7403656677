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
                        tokens: try entry.require(point["tokens"]?.intValue, "a point's \"tokens\""),
                        values: try ["accuracy", "loss", "others_accuracy", "others_loss"].map {
                            try entry.require(point[$0]?.doubleValue, "a point's \"\($0)\"")
                        })
                })
        }
        let original = (entry.content["original"]?.arrayValue ?? []).compactMap(\.doubleValue)
        guard original.count == 4, let first = curves.first,
            curves.allSatisfy({ $0.points.count == first.points.count || $0.name != first.name })
        else { throw EvaluationError.malformedResults(path: entry.path, reason: "its curves are incomplete") }
        let report = RelearningReport(
            curves: curves, original: original, level: entry.content["level"]?.doubleValue ?? 1,
            what: "documents to be forgotten")
        return ReportPart(
            title: entry.name, pictures: [report.plot(title: "Accuracy over tokens of fine-tuning").svg()],
            tables: [report.summaryTable])
    }
}
