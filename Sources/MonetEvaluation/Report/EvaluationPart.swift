import Foundation
import MonetFoundation

/// Runs of benchmarks beside each other.
struct EvaluationPart {
    /// One run.
    private struct Run {
        let name: String
        let isLimited: Bool
        /// Values of each task, in the order of `tasks`.
        var results: [String: JSONValue] = [:]
        var tasks: [String] = []
        var chance: [String: JSONValue] = [:]
        /// Tasks that belong to a group, which stands for them.
        var hidden: Set<String> = []
    }

    private let runs: [Run]
    private let names: [String]

    init(_ entries: [ResultsFolder.Entry]) {
        // Files of one model and one kind of run belong together; of a task that was repeated, the latest counts.
        var groups: [String: [ResultsFolder.Entry]] = [:]
        var order: [String] = []
        let dated = entries.sorted {
            ($0.content["date"]?.doubleValue ?? 0) < ($1.content["date"]?.doubleValue ?? 0)
        }
        for entry in dated {
            let key = JSONValue.array([
                entry.content["model_name"] ?? .null,
                // The numbers of examples themselves tell more than what was asked for.
                .object((entry.content["config"]?.members ?? []).filter { $0.key != "num_fewshot" }),
                .string(Self.shots(entry)),
            ]).serialized()
            if groups[key] == nil { order.append(key) }
            groups[key, default: []].append(entry)
        }
        let chosen = order.compactMap { groups[$0] }
        let short = chosen.map { Self.name($0[0], isLong: false) }
        let long = chosen.map { Self.name($0[0], isLong: true) }
        var runs: [Run] = []
        for (place, files) in chosen.enumerated() {
            var name = short.count { $0 == short[place] } > 1 ? long[place] : short[place]
            let same = runs.count { $0.name == name || $0.name.hasPrefix(name + " (") }
            if same > 0 { name += " (\(same + 1))" }
            var run = Run(name: name, isLimited: files[0].content["config"]?["limit"]?.intValue != nil)
            for file in files {
                for member in file.content["results"]?.members ?? [] {
                    run.results[member.key] = member.value
                }
                run.tasks += (file.content["results"]?.members ?? []).map(\.key).filter {
                    !run.tasks.contains($0)
                }
                for member in file.content["chance"]?.members ?? [] { run.chance[member.key] = member.value }
                let subtasks = file.content["group_subtasks"]?.members ?? []
                run.hidden.formUnion(
                    subtasks.flatMap { $0.value.arrayValue?.compactMap(\.stringValue) ?? [] })
            }
            runs.append(run)
        }
        self.runs = runs
        var names: [String] = []
        for run in runs {
            names += run.tasks.filter { !run.hidden.contains($0) && !names.contains($0) }
        }
        self.names = names
    }

    /// The numbers of examples.
    private static func shots(_ entry: ResultsFolder.Entry) -> String {
        Set((entry.content["n-shot"]?.members ?? []).compactMap { $0.value.intValue }).sorted()
            .map { "\($0)" }.joined(separator: "/")
    }

    /// A run by its model and masks, protocol and examples; with the model's whole path and the number of documents if it is
    /// long.
    private static func name(_ entry: ResultsFolder.Entry, isLong: Bool) -> String {
        let model = entry.content["model_name"]?.stringValue ?? entry.name
        let config = entry.content["config"]
        let masks = config?["mask"]?.arrayValue?.compactMap(\.stringValue) ?? []
        let shots = shots(entry)
        var name = isLong ? model : (model as NSString).lastPathComponent
        if !masks.isEmpty, !(name as NSString).lastPathComponent.contains("+") {
            name += masks.map { "+" + ($0 as NSString).lastPathComponent.replacing(".mask", with: "") }
                .joined()
        }
        name += ", " + (config?["protocol"]?.stringValue ?? "lm-eval")
        if !shots.isEmpty { name += ", \(shots)-shot" }
        if isLong, let limit = config?["limit"]?.intValue { name += ", \(limit) documents" }
        return name
    }

    /// A task's metrics, those of the paper's tables first.
    private func metrics(_ task: String, _ run: Run) -> [(metric: String, value: Double, error: Double?)] {
        let members = run.results[task]?.members ?? []
        let all = members.compactMap { member -> (metric: String, value: Double, error: Double?)? in
            let parts = member.key.split(separator: ",")
            guard parts.count == 2, !parts[0].hasSuffix("_stderr"), let value = member.value.doubleValue
            else { return nil }
            let error = run.results[task]?["\(parts[0])_stderr,\(parts[1])"]
            return (String(parts[0]), value, error?.doubleValue)
        }
        let preferred = ["acc_norm", "acc"].flatMap { name in all.filter { $0.metric == name } }
        return preferred + all.filter { !["acc_norm", "acc"].contains($0.metric) }
    }

    /// The values of the runs by the first metric that all runs with this task have.
    private func values(_ task: String) -> (metric: String, values: [(value: Double, error: Double?)?])? {
        let all = runs.map { metrics(task, $0) }
        let measured = all.filter { !$0.isEmpty }
        guard
            let metric = measured.first?.map(\.metric).first(where: { name in
                measured.allSatisfy { $0.contains { $0.metric == name } }
            })
        else { return nil }
        return (metric, all.map { own in own.first { $0.metric == metric }.map { ($0.value, $0.error) } })
    }

    private func chance(_ task: String) -> Double? {
        runs.compactMap { run -> Double? in
            guard let found = run.chance[task] else { return nil }
            return found.doubleValue ?? found.members?.first?.value.doubleValue
        }.first
    }

    var part: ReportPart {
        var rows = [["Task", "Metric", "Chance"] + runs.map(\.name)]
        var dots: [DotPlot.Row] = []
        var guessed: [String] = []
        for task in names {
            guard let (metric, values) = values(task) else { continue }
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
        let limited = runs.count(where: \.isLimited)
        var sentences: [String] = []
        if !guessed.isEmpty {
            sentences.append(
                "Within two standard errors of guessing in every run: \(guessed.joined(separator: ", ")). These results are chance; "
                    + "they say nothing about the model.")
        }
        if limited > 0 {
            sentences.append(
                "Only the first documents of each task were asked in \(limited) of \(runs.count) runs.")
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
