import Foundation
import MonetFoundation

/// An unlearning matrix from its file.
enum MatrixPart {
    static func part(_ entry: ResultsFolder.Entry) throws -> ReportPart {
        let ratio = entry.content["ratio"]?.doubleValue ?? .nan
        // Accuracies of questions have a share that guessing gives; next-token accuracies have none.
        let isOfTasks = entry.content["chance"] != nil
        let matrix = try UnlearningMatrix(try entry.require(entry.content["experts"], "\"experts\""), entry)
        var part = ReportPart(title: entry.name)
        let hasLoss = matrix.baseline.contains { $0.negativeLogLikelihood > 0 }
        let metrics: [(UnlearningMatrix.Metric, String)] =
            isOfTasks
            ? [(.accuracy, "Decrease of the accuracy, percentage points")]
                + (hasLoss ? [(.loss, "Increase of −log p of the right choice, nats per question")] : [])
            : [
                (.loss, "Increase of the loss, nats per token"),
                (.accuracy, "Decrease of the cloze accuracy, percentage points"),
            ]
        for (metric, title) in metrics {
            part.pictures.append(matrix.heatMap(metric, title: title).table())
            let summary = matrix.summary(metric)
            let (factor, unit) = metric == .loss ? (1.0, "nats") : (100.0, "points")
            var text =
                title + ": specialists by a ratio of \(String(format: "%g", ratio)), on average "
                + "\(String(format: "%.0f", summary.removed)), "
                + "\(signed(factor * summary.target, digits: 3)) \(unit) on the target and "
                + "\(signed(factor * summary.others, digits: 3)) on the others"
            if let random = summary.random {
                text +=
                    "; random experts, as many and firing as often, \(signed(factor * random.mean, digits: 3)) ± "
                    + "\(String(format: "%.3f", factor * random.deviation)) on the target"
            }
            part.sentences.append(text + ".")
        }
        return part
    }
}

extension UnlearningMatrix {
    /// Reads what `json()` writes.
    ///
    /// - Throws: `EvaluationError.malformedResults`.
    fileprivate init(_ json: JSONValue, _ entry: ResultsFolder.Entry) throws {
        let labels = try entry.require(json["labels"]?.arrayValue, "\"labels\"").compactMap(\.stringValue)
        func scores(_ json: JSONValue?) throws -> [HeldOutScore] {
            try labels.map { label in
                let own = try entry.require(json?[label], "scores of \"\(label)\"")
                var score = HeldOutScore()
                let count = try entry.number(own["tokens"], "\"tokens\" of \"\(label)\"")
                // A label of programs has no loss.
                let loss = try own["loss"].flatMap { $0.isNull ? nil : $0 }.map {
                    try entry.number($0, "\"loss\" of \"\(label)\"")
                }
                let share = try entry.number(own["cloze_accuracy"], "\"cloze_accuracy\" of \"\(label)\"")
                guard count >= 0, (0...1).contains(share) else {
                    throw EvaluationError.malformedResults(
                        path: entry.path, reason: "the accuracy of \"\(label)\" is \(share) of \(count)")
                }
                score.tokens = Int(count)
                score.negativeLogLikelihood = (loss ?? 0) * count
                score.hits = Int((share * count).rounded())
                return score
            }
        }
        func row(_ json: JSONValue?) throws -> Row {
            let json = try entry.require(json, "a row")
            return Row(
                removed: json["removed"]?.intValue ?? 0, meanFrequency: json["mean_frequency"]?.doubleValue,
                scores: try scores(json["scores"]))
        }
        self.init(
            labels: labels, baseline: try scores(json["baseline"]),
            rows: try labels.map { try row(json["rows"]?[$0]) },
            controls: try labels.map { label in
                try (json["random"]?[label]?["draws"]?.arrayValue ?? []).map { try row($0) }
            })
    }
}
