import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

/// A run's folder: `run.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/step-…`, and the
/// links `latest` and `best`.
///
/// A checkpoint is written to a temporary folder and renamed: at every moment, even after a kill or
/// with a full disk, the newest `step-…` folder is complete.
public struct RunDirectory: Sendable {
    /// The folder.
    public let path: String
    var metricsPath: String { path + "/metrics.jsonl" }
    private var checkpointsPath: String { path + "/checkpoints" }
    private var configurationPath: String { path + "/run.json" }

    /// Refers to a folder, which need not exist.
    public init(path: String) {
        self.path = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
    }

    /// Whether the folder contains a run.
    public var exists: Bool { FileManager.default.fileExists(atPath: configurationPath) }

    /// Makes the folder for a new run.
    ///
    /// - Throws: `TrainingError.runExists`, `FileError.unwritable`.
    func create(_ configuration: RunConfiguration) throws {
        guard !exists else { throw TrainingError.runExists(folder: path) }
        try AtomicFile.createFolder(checkpointsPath)
        try AtomicFile.write(configuration.json().serialized(pretty: true) + "\n", to: configurationPath)
    }

    /// The settings that the run started with.
    public func configuration() throws -> RunConfiguration {
        guard exists else { throw TrainingError.cannotResume(folder: path, reason: "there is no run.json") }
        return try RunConfiguration(
            json: JSONValue(contentsOfFile: configurationPath), source: configurationPath)
    }

    /// Replaces the stored settings.
    func store(_ configuration: RunConfiguration) throws {
        try AtomicFile.write(configuration.json().serialized(pretty: true) + "\n", to: configurationPath)
    }

    /// Complete checkpoints, oldest first.
    public func checkpoints() -> [(step: Int, path: String)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: checkpointsPath)) ?? []
        return names.compactMap { name in
            guard name.hasPrefix("step-"), let step = Int(name.dropFirst(5)) else { return nil }
            return (step, checkpointsPath + "/" + name)
        }.sorted { $0.step < $1.step }
    }

    /// What a checkpoint contains in addition to the model.
    struct State {
        var step: Int
        var bestLoss: Double?
        var bestStep: Int?

        var json: JSONValue {
            [
                "step": .integer(step), "best_loss": bestLoss.map { .number($0) } ?? .null,
                "best_step": bestStep.map { .integer($0) } ?? .null,
            ]
        }
    }

    /// Saves model, optimizer and state; then deletes old checkpoints.
    @discardableResult
    func save(
        model: MonetLanguageModel, optimizer: AdamW, state: State, tokenizerPath: String, keepLast: Int
    ) throws -> String {
        let name =
            "step-" + String(repeating: "0", count: max(0, 8 - "\(state.step)".count)) + "\(state.step)"
        let target = checkpointsPath + "/" + name
        try AtomicFile.writeFolder(target, replacing: true) { folder in
            try Checkpoint.write(model, dtype: .float32, to: folder)
            try TokenizerFiles.install(
                from: tokenizerPath, into: folder, contextLength: model.configuration.contextLength)
            try SafetensorsWriter.write(optimizer.state(), to: folder + "/optimizer.safetensors")
            try AtomicFile.write(
                state.json.serialized(pretty: true) + "\n", to: folder + "/trainer_state.json")
        }
        try link("latest", to: "checkpoints/" + name)
        if let best = state.bestStep {
            let all = checkpoints()
            if let found = all.first(where: { $0.step == best }) {
                try link("best", to: "checkpoints/" + (found.path as NSString).lastPathComponent)
            }
        }
        let all = checkpoints()
        for old in all.dropLast(keepLast) where old.step != state.bestStep {
            try? FileManager.default.removeItem(atPath: old.path)
        }
        removeLeftovers()
        return target
    }

    /// Removes incomplete folders of runs that were killed.
    private func removeLeftovers() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: checkpointsPath)) ?? []
        where name.contains(".tmp-") || name.contains(".old-") {
            try? FileManager.default.removeItem(atPath: checkpointsPath + "/" + name)
        }
    }

    private func link(_ name: String, to target: String) throws {
        let place = path + "/" + name
        let temporary = place + ".tmp-\(getpid())"
        unlink(temporary)
        guard symlink(target, temporary) == 0, rename(temporary, place) == 0 else {
            throw FileError.unwritable(path: place, reason: String(cString: strerror(errno)))
        }
    }

    /// Reads what `save` wrote.
    func load(_ checkpoint: String) throws -> (
        model: MonetLanguageModel, optimizer: SafetensorsFile, state: State
    ) {
        let statePath = checkpoint + "/trainer_state.json"
        let json = try JSONValue(contentsOfFile: statePath)
        guard let step = json["step"]?.intValue, step >= 0 else {
            throw TrainingError.cannotResume(folder: path, reason: "\(statePath) names no step")
        }
        return (
            try MonetLanguageModel.load(checkpoint, for: .training),
            try SafetensorsFile(path: checkpoint + "/optimizer.safetensors"),
            State(step: step, bestLoss: json["best_loss"]?.doubleValue, bestStep: json["best_step"]?.intValue)
        )
    }

    /// Removes metrics of steps after `step`, which a resumed run writes again.
    func truncateMetrics(after step: Int) throws {
        guard FileManager.default.fileExists(atPath: metricsPath) else { return }
        let lines = try TextFile.read(metricsPath).split(separator: "\n").filter { line in
            // An incomplete line, left by a process that was killed, does not parse and is removed too.
            guard let json = try? JSONValue(parsing: String(line), source: metricsPath) else { return false }
            return (json["step"]?.intValue ?? .max) <= step
        }
        try AtomicFile.write(lines.map { $0 + "\n" }.joined(), to: metricsPath)
    }
}
