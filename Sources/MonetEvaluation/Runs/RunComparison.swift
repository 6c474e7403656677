import Foundation
import MonetFoundation

/// Training runs side by side: their losses and how their routers were used, from `metrics.jsonl`.
public struct RunComparison: Sendable {
    /// One run.
    public struct Run: Sendable {
        /// The folder's name.
        public let name: String
        /// Values by name, each with its step.
        let metrics: [String: [(step: Int, value: Double)]]

        /// The last value of a metric; nil if the run has none.
        public func last(_ metric: String) -> Double? { metrics[metric]?.last?.value }
        /// The last step that was reported.
        public var step: Int { metrics.values.compactMap { $0.last?.step }.max() ?? 0 }
        /// The lowest value of a metric; nil if the run has none.
        public func lowest(_ metric: String) -> Double? { metrics[metric]?.map(\.value).min() }

        /// Reads the metrics of a run's folder.
        ///
        /// - Throws: `FileError`, `EvaluationError.malformedResults` naming the line.
        public init(folder: String, name: String) throws {
            let path = folder + "/metrics.jsonl"
            var metrics: [String: [(step: Int, value: Double)]] = [:]
            let lines = try TextFile.read(path).lines
            for (place, line) in lines.enumerated() where !line.isEmpty {
                // A run that goes on may just be writing its last line.
                guard let json = try? JSONValue(parsing: String(line), source: path),
                    let members = json.members
                else {
                    if place >= lines.count - 2 { continue }
                    throw EvaluationError.malformedResults(
                        path: path, reason: "line \(place + 1) is no JSON object")
                }
                guard let step = json["step"]?.intValue else {
                    throw EvaluationError.malformedResults(
                        path: path, reason: "line \(place + 1): \"step\" is absent or no number")
                }
                for member in members {
                    guard let value = member.value.doubleValue, value.isFinite else { continue }
                    metrics[member.key, default: []].append((step, value))
                }
            }
            guard metrics["loss"] != nil || metrics["eval_loss"] != nil else {
                throw EvaluationError.malformedResults(
                    path: path, reason: "no losses, expected a run's metrics")
            }
            self.name = name
            self.metrics = metrics
        }
    }

    /// The runs, in the order given.
    public let runs: [Run]

    /// Reads the runs in some folders. Folders of one name are told apart by those they lie in.
    ///
    /// - Throws: as `Run`.
    public init(folders: [String]) throws {
        let names = folders.map(\.lastPathName)
        let areDistinct = Set(names).count == names.count
        runs = try zip(folders, names).map { try Run(folder: $0, name: areDistinct ? $1 : $0) }
    }

    private static let panels = [
        ("loss", "training loss (nats per token)"), ("eval_loss", "held-out loss (nats per token)"),
        ("uniformity", "uniformity loss"), ("ambiguity", "ambiguity loss"),
        ("unselected_experts", "share of experts that no token of a batch selects"),
        ("eval_alive_experts", "share of experts selected on held-out text, least of all routers"),
        ("selected_per_head", "experts selected per head and token"), ("grad_norm", "norm of the gradient"),
    ]

    /// The curves of all runs as SVG; what no run has is left out.
    public func svg(title: String) -> String {
        StepCurves(
            title: title, axis: "steps",
            panels: Self.panels.compactMap { metric, title in
                let curves = runs.compactMap { run -> StepCurves.Curve? in
                    guard let points = run.metrics[metric], !points.isEmpty else { return nil }
                    return .init(name: run.name, points: points.map { (Double($0.step), $0.value) })
                }
                return curves.isEmpty ? nil : .init(title: title, curves: curves)
            }
        ).svg()
    }

    /// The last values of every run, with a heading: `run`, then one column for each metric that any run has.
    public var table: [[String]] {
        let columns: [(title: String, value: (Run) -> String?)] = [
            ("steps", { "\($0.step)" }), ("tokens", { Self.whole($0.last("tokens")) }),
            ("loss", { $0.last("loss").map { String(format: "%.4f", $0) } }),
            ("held-out loss", { $0.last("eval_loss").map { String(format: "%.4f", $0) } }),
            ("lowest", { $0.lowest("eval_loss").map { String(format: "%.4f", $0) } }),
            ("experts alive", { $0.last("eval_alive_experts").map { String(format: "%.1f%%", 100 * $0) } }),
            ("selected per head", { $0.last("selected_per_head").map { String(format: "%.2f", $0) } }),
            ("tokens/s", { Self.whole($0.last("tokens_per_second")) }),
        ]
        return [["run"] + columns.map(\.title)]
            + runs.map { run in [run.name] + columns.map { $0.value(run) ?? "–" } }
    }

    private static func whole(_ value: Double?) -> String? {
        value.flatMap { Int(exactly: $0.rounded()) }?.grouped
    }

    /// A page with the curves and the table.
    public func page(title: String, origin: PageOrigin) -> String {
        let rows = table
        func row(_ cells: [String], _ tag: String) -> String {
            "<tr>" + cells.map { "<\(tag)>\($0.htmlEscaped)</\(tag)>" }.joined() + "</tr>"
        }
        let body =
            "<table><thead>\(row(rows[0], "th"))</thead><tbody>"
            + rows.dropFirst().map { row($0, "td") }.joined() + "</tbody></table>"
        return ReportPage.html(
            title: title, lead: [], sections: [body, ReportPage.figure(svg(title: "Runs side by side"))],
            origin: origin)
    }
}
