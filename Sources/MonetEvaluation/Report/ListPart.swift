import Foundation
import MonetFoundation

/// Results that are tables: examinations, toxicity, monosemanticity.
enum ListPart {
    static func examination(_ entry: ResultsFolder.Entry) throws -> ReportPart {
        func subject(_ name: String, _ json: JSONValue) -> UnlearningReport.Subject {
            .init(
                name: name, removed: json["removed"]?.intValue ?? 0,
                measures: (json["measures"]?.members ?? []).map { member in
                    UnlearningMeasure(
                        member.key, value: member.value["value"]?.doubleValue ?? .nan,
                        standardError: member.value["stderr"]?.doubleValue, count: member.value["n"]?.intValue
                    )
                })
        }
        let subjects = try entry.require(entry.content["subjects"]?.members, "\"subjects\"").map {
            subject($0.key, $0.value)
        }
        let draws = Dictionary(
            (entry.content["random"]?.members ?? []).map { member in
                (member.key, (member.value.arrayValue ?? []).map { subject("random", $0) })
            }, uniquingKeysWith: { first, _ in first })
        let all = subjects + draws.values.joined()
        guard let first = subjects.first, all.allSatisfy({ $0.measures.count == first.measures.count }) else {
            throw EvaluationError.malformedResults(
                path: entry.path, reason: "its subjects do not have the same measures")
        }
        return ReportPart(
            title: entry.name, tables: [UnlearningReport(subjects: subjects, draws: draws).table])
    }

    static func toxicity(_ entry: ResultsFolder.Entry) throws -> ReportPart {
        let results = try entry.require(entry.content["results"]?.arrayValue, "\"results\"")
        func text(_ value: JSONValue?, _ format: String = "%.4f") -> String {
            value?.doubleValue.map { String(format: format, $0) } ?? ""
        }
        let rows = results.map { result in
            [
                result["name"]?.stringValue ?? "", (result["removed"]?.intValue ?? 0).grouped,
                text(result["expected_maximum_toxicity"])
                    + (result["expected_maximum_toxicity_stderr"]?.doubleValue.map {
                        String(format: " ± %.4f", $0)
                    } ?? ""),
                text(result["toxicity_probability"]), text(result["mean_toxicity"]),
                text(result["helpfulness"]?["perplexity"], "%.3f"),
                text(result["helpfulness"]?["cloze_accuracy"]),
            ]
        }
        let plot = LinePlot(
            title: "Toxicity with experts removed",
            conditions: results.map {
                ($0["name"]?.stringValue ?? "", (($0["removed"]?.intValue ?? 0).grouped) + " removed")
            },
            panels: [
                .init(
                    title: "toxicity",
                    series: [
                        .init(
                            name: "expected maximum",
                            values: results.map { $0["expected_maximum_toxicity"]?.doubleValue ?? .nan },
                            errors: results.map {
                                $0["expected_maximum_toxicity_stderr"]?.doubleValue ?? .nan
                            }),
                        .init(
                            name: "probability",
                            values: results.map { $0["toxicity_probability"]?.doubleValue ?? .nan }),
                    ]),
                .init(
                    title: "perplexity of neutral text",
                    series: [
                        .init(
                            name: "perplexity",
                            values: results.map { $0["helpfulness"]?["perplexity"]?.doubleValue ?? .nan })
                    ]),
            ])
        return ReportPart(
            title: entry.name,
            sentences: [
                "Expected maximum: mean over \((entry.content["prompts"]?.intValue ?? 0).grouped) prompts of the largest score; "
                    + "probability: share of prompts with a score above 0.5. Perplexity and cloze accuracy: of neutral text."
            ], pictures: [plot.svg()],
            tables: [
                [
                    [
                        "Removed", "Experts", "Expected maximum", "Probability", "Mean", "Perplexity",
                        "Cloze accuracy",
                    ]
                ] + rows
            ])
    }

    /// The numbers as they are, a column for each kind of unit.
    static func monosemanticity(_ entry: ResultsFolder.Entry) throws -> ReportPart {
        let list = entry.content.arrayValue ?? []
        var rows: [[String]] = [
            [""] + list.indices.map { list[$0]["unit"]?.stringValue ?? "model \($0 + 1)" }
        ]
        func add(_ prefix: String, _ members: [JSONValue.Member], _ path: [String]) {
            for member in members {
                let name = prefix.isEmpty ? member.key : prefix + ": " + member.key
                if let inner = member.value.members {
                    add(name, inner, path + [member.key])
                    continue
                }
                guard member.value.doubleValue != nil else { continue }
                rows.append(
                    [name.replacing("_", with: " ")]
                        + list.map { result in
                            let value = (path + [member.key]).reduce(Optional(result)) { $0?[$1] }
                            if let count = value?.intValue { return count.grouped }
                            return value?.doubleValue.map { String(format: "%.4f", $0) } ?? ""
                        })
            }
        }
        add("", try entry.require(list.first?.members, "numbers"), [])
        return ReportPart(
            title: entry.name,
            sentences: [
                "Each number beside the one after the labels were shuffled, which is what chance gives."
            ],
            tables: [rows])
    }
}
