import Foundation
import MonetFoundation

/// Results of several edits under one protocol and scorer, for presentation.
public struct ToxicityReport: Sendable {
    /// The protocol.
    public let plan: ToxicityProtocol
    /// The number of prompts for each edit.
    public let promptCount: Int
    /// A description of the scorer, with its own quality.
    public let scorer: String
    private let scorerJSON: JSONValue
    /// One result for every edit; the unchanged model comes first.
    public let results: [ToxicityResult]
    /// Results that do not follow from those before them, as more does from less of one kind.
    private let separate: Set<Int>

    /// Joins results and their origin.
    ///
    /// - `separate`: places of results that do not follow from those before them, such as those of masks from files.
    public init(
        plan: ToxicityProtocol, promptCount: Int, scorer: any ToxicityScorer, results: [ToxicityResult],
        separate: Set<Int> = []
    ) {
        self.separate = separate
        self.plan = plan
        self.promptCount = promptCount
        self.scorer = scorer.summary
        scorerJSON = scorer.json
        self.results = results
    }

    /// Cells of a table, the heading first.
    public var table: [[String]] {
        var heading = [
            "removed", "experts", "share", "expected maximum", "probability", "mean score",
        ]
        let hasNeutral = results.contains { $0.helpfulness != nil }
        if hasNeutral { heading += ["perplexity", "cloze accuracy"] }
        return [heading]
            + results.map { result in
                var row = [
                    result.name, "\(result.removed)", percent(result.removedShare, 2),
                    fixed(result.expectedMaximum) + " ± " + fixed(result.expectedMaximumError),
                    fixed(result.probability), fixed(result.mean),
                ]
                if let helpfulness = result.helpfulness {
                    row += [String(format: "%.2f", helpfulness.perplexity), percent(helpfulness.accuracy, 2)]
                }
                return row
            }
    }

    /// Cells of a table by group of prompts; empty without groups.
    public var groupTable: [[String]] {
        guard let groups = results.first?.groups, !groups.isEmpty else { return [] }
        return [["mean score (probability) of group", "prompts"] + results.map(\.name)]
            + groups.indices.map { index in
                [groups[index].name, "\(groups[index].prompts)"]
                    + results.map {
                        fixed($0.groups[index].mean) + " (" + fixed($0.groups[index].probability) + ")"
                    }
            }
    }

    /// Sentences below a table.
    public var notes: [String] {
        let draws =
            plan.samples == 1
            ? "one continuation of \(plan.tokens) tokens each"
            : "\(plan.samples) continuations of \(plan.tokens) tokens each"
        let sampling =
            plan.sampling.temperature == 0
            ? "greedy" : "temperature \(plan.sampling.temperature), top-p \(plan.sampling.topP)"
        return [
            "\(plan.name): \(promptCount) prompts, \(draws), \(sampling).", "Scores: \(scorer).",
            "Expected maximum: mean over prompts of the largest score, ± its standard error; probability: share of prompts with a score above 0.5.",
        ]
    }

    /// Toxicity and helpfulness by edit.
    public func plot(title: String) -> LinePlot {
        var panels = [
            LinePlot.Panel(
                title: "toxicity",
                series: [
                    .init(
                        name: "expected maximum", values: results.map(\.expectedMaximum),
                        errors: results.map(\.expectedMaximumError)),
                    .init(name: "probability", values: results.map(\.probability)),
                ])
        ]
        if results.contains(where: { $0.helpfulness != nil }) {
            panels.append(
                LinePlot.Panel(
                    title: "perplexity of neutral text",
                    series: [
                        .init(name: "perplexity", values: results.map { $0.helpfulness?.perplexity ?? .nan })
                    ]))
            panels.append(
                LinePlot.Panel(
                    title: "cloze accuracy on neutral text, %",
                    series: [
                        .init(
                            name: "accuracy", values: results.map { 100 * ($0.helpfulness?.accuracy ?? .nan) }
                        )
                    ]))
        }
        var plot = LinePlot(
            title: title, conditions: results.map { ($0.name, percent($0.removedShare, 1) + " removed") },
            panels: panels)
        plot.gaps = separate
        return plot
    }

    /// The outcome in a sentence; nil without an edit.
    public var conclusion: String? {
        let edits = results.dropFirst()
        guard let first = results.first, !edits.isEmpty else { return nil }
        guard
            let best = edits.filter({ $0.removed > 0 }).min(by: { $0.expectedMaximum < $1.expectedMaximum })
        else { return "No edit removes an expert, so that all results are those of the model as it is." }
        var text =
            "With \(best.removed.grouped) experts removed (\(best.name)), the expected maximum toxicity is "
            + "\(fixed(best.expectedMaximum)) ± \(fixed(best.expectedMaximumError)), as against "
            + "\(fixed(first.expectedMaximum)) ± \(fixed(first.expectedMaximumError)) with nothing removed"
        if let own = first.helpfulness, let edited = best.helpfulness {
            text += String(
                format: "; the perplexity of neutral text goes from %.2f to %.2f", own.perplexity,
                edited.perplexity)
        }
        return text + "."
    }

    /// A self-contained page: the conclusion, plot, tables, notes.
    public func page(title: String, origin: PageOrigin) -> String {
        let picture = plot(title: "Toxicity and helpfulness with experts removed").svg()
        return ReportPage.html(
            title: title, lead: conclusion.map { [$0] } ?? [],
            sections: [ReportPage.figure(picture), ReportPage.table(table), ReportPage.table(groupTable)],
            definitions: notes, origin: origin)
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        [
            "protocol": plan.json, "prompts": .integer(promptCount), "scorer": scorerJSON,
            "results": .array(
                results.map { result in
                    [
                        "name": .string(result.name), "removed": .integer(result.removed),
                        "removed_share": .number(result.removedShare),
                        "expected_maximum_toxicity": .number(result.expectedMaximum),
                        "expected_maximum_toxicity_stderr": .number(result.expectedMaximumError),
                        "toxicity_probability": .number(result.probability),
                        "mean_toxicity": .number(result.mean),
                        "helpfulness": result.helpfulness.map {
                            [
                                "perplexity": .number($0.perplexity), "cloze_accuracy": .number($0.accuracy),
                                "tokens": .integer($0.tokens),
                            ]
                        } ?? .null,
                        "groups": .object(
                            result.groups.map {
                                .init(
                                    $0.name,
                                    [
                                        "mean_toxicity": .number($0.mean),
                                        "toxicity_probability": .number($0.probability),
                                        "prompts": .integer($0.prompts),
                                    ])
                            }),
                    ]
                }),
        ]
    }

    private func fixed(_ value: Double) -> String { String(format: "%.3f", value) }
    private func percent(_ value: Double, _ digits: Int) -> String {
        String(format: "%.\(digits)f%%", 100 * value)
    }
}
