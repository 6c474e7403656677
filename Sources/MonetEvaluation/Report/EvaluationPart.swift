import Foundation
import MonetFoundation

/// Runs of benchmarks beside each other.
struct EvaluationPart {
    /// One run.
    private struct Run {
        let name: String
        let content: JSONValue
        /// Tasks that belong to a group, which stands for them.
        let hidden: Set<String>
    }

    private let runs: [Run]
    private let names: [String]

    init(_ entries: [ResultsFolder.Entry]) throws {
        var runs: [Run] = []
        for entry in entries {
            let model = entry.content["model_name"]?.stringValue ?? entry.name
            let config = entry.content["config"]
            let masks = config?["mask"]?.arrayValue?.compactMap(\.stringValue) ?? []
            let plan = config?["protocol"]?.stringValue ?? "lm-eval"
            let shots = Set(
                (entry.content["n-shot"]?.members ?? []).compactMap { $0.value.intValue.map { "\($0)" } })
            var name = (model as NSString).lastPathComponent
            if !masks.isEmpty, !name.contains("+") {
                name += masks.map {
                    "+" + (($0 as NSString).lastPathComponent as NSString).deletingPathExtension
                }.joined()
            }
            name += ", \(plan)" + (shots.isEmpty ? "" : ", \(shots.sorted().joined(separator: "/"))-shot")
            let members = entry.content["group_subtasks"]?.members ?? []
            let hidden = Set(members.flatMap { $0.value.arrayValue?.compactMap(\.stringValue) ?? [] })
            // Of several runs of one kind, the last is the one that counts.
            runs.removeAll {
                $0.name == name && $0.content["limit"] == entry.content["limit"]
                    && Self.tasks($0.content) == Self.tasks(entry.content)
            }
            runs.append(Run(name: name, content: entry.content, hidden: hidden))
        }
        self.runs = runs
        var names: [String] = []
        for run in runs {
            for member in run.content["results"]?.members ?? []
            where !run.hidden.contains(member.key) && !names.contains(member.key) {
                names.append(member.key)
            }
        }
        self.names = names
    }

    private static func tasks(_ content: JSONValue) -> [String] {
        (content["results"]?.members ?? []).map(\.key)
    }

    /// The metric that is shown: of the paper's tables where there is one.
    private func value(_ task: String, _ run: Run) -> (metric: String, value: Double, error: Double?)? {
        guard let members = run.content["results"]?[task]?.members else { return nil }
        let metrics = members.compactMap { member -> (metric: String, key: String, value: Double)? in
            let parts = member.key.split(separator: ",")
            guard parts.count == 2, !parts[0].hasSuffix("_stderr"), let value = member.value.doubleValue
            else { return nil }
            return (String(parts[0]), member.key, value)
        }
        guard
            let chosen = metrics.first(where: { $0.metric == "acc_norm" })
                ?? metrics.first(where: { $0.metric == "acc" }) ?? metrics.first
        else { return nil }
        let key = chosen.key.replacing(",", with: "_stderr,")
        return (chosen.metric, chosen.value, run.content["results"]?[task]?[key]?.doubleValue)
    }

    private func chance(_ task: String) -> Double? {
        runs.compactMap { run -> Double? in
            guard let found = run.content["chance"]?[task] else { return nil }
            return found.doubleValue ?? found.members?.first?.value.doubleValue
        }.first
    }

    var part: ReportPart {
        var rows = [["Task", "Metric", "Chance"] + runs.map(\.name)]
        var dots: [DotPlot.Row] = []
        var guessed: [String] = []
        for task in names {
            let values = runs.map { value(task, $0) }
            guard let metric = values.compactMap({ $0 }).first?.metric else { continue }
            let chance = chance(task)
            rows.append(
                [task, metric, chance.map { String(format: "%.4f", $0) } ?? ""]
                    + values.map { value in
                        guard let value else { return "" }
                        return String(format: "%.4f", value.value)
                            + (value.error.map { String(format: " ± %.4f", $0) } ?? "")
                    })
            let isShare = values.compactMap { $0?.value }.allSatisfy { (0...1).contains($0) }
            if isShare {
                dots.append(
                    .init(
                        name: task, dots: values.map { $0.map { .init(value: $0.value, error: $0.error) } },
                        chance: chance))
            }
            if let chance,
                values.compactMap({ $0 }).allSatisfy({ abs($0.value - chance) <= 2 * ($0.error ?? 0) })
            {
                guessed.append(task)
            }
        }
        let limits = runs.compactMap { $0.content["config"]?["limit"]?.intValue }
        var sentences: [String] = []
        if !guessed.isEmpty {
            sentences.append(
                "Within two standard errors of guessing in every run: \(guessed.joined(separator: ", ")). These results are chance; "
                    + "they say nothing about the model.")
        }
        if !limits.isEmpty {
            sentences.append(
                "Only the first documents of each task were asked in \(limits.count) of \(runs.count) runs.")
        }
        return ReportPart(
            sentences: sentences,
            pictures: dots.isEmpty
                ? []
                : [
                    DotPlot(
                        title: "Benchmarks, ± the standard error; dashes: guessing", series: runs.map(\.name),
                        rows: dots
                    ).svg()
                ], tables: [rows])
    }
}
