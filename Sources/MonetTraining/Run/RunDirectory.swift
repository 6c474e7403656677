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
    /// The losses and evaluations of the run, a JSON line each.
    public var metricsPath: String { path + "/metrics.jsonl" }
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
        try AtomicFile.createFolder(path)
        try store(configuration)
        try AtomicFile.createFolder(checkpointsPath)
    }

    /// Locks the run for this process.
    ///
    /// - Throws: `FileError.inUse` if another process trains it.
    func lock() throws -> FileLock {
        try AtomicFile.createFolder(path)
        return try FileLock.acquire(path + "/.lock", for: path)
    }

    /// The settings that the run started with.
    public func configuration() throws -> RunConfiguration {
        guard exists else { throw TrainingError.cannotResume(folder: path, reason: "there is no run.json") }
        return try RunConfiguration(
            stored: JSONValue(contentsOfFile: configurationPath), source: configurationPath)
    }

    /// Replaces the stored settings.
    func store(_ configuration: RunConfiguration) throws {
        try AtomicFile.write(configuration.json().serialized(pretty: true) + "\n", to: configurationPath)
    }

    /// Files that every checkpoint of a run has, beside its weights.
    private static let files = ["config.json", "optimizer.safetensors", "trainer_state.json"]

    /// Complete checkpoints, oldest first.
    public func checkpoints() -> [(step: Int, path: String)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: checkpointsPath)) ?? []
        return names.compactMap { name in
            guard name.hasPrefix("step-"), let step = Int(name.dropFirst(5)) else { return nil }
            let path = checkpointsPath + "/" + name
            let isWhole = Self.files.allSatisfy { FileManager.default.fileExists(atPath: path + "/" + $0) }
            return isWhole ? (step, path) : nil
        }.sorted { $0.step < $1.step }
    }

    /// What a checkpoint contains in addition to the model.
    struct State {
        var step: Int
        var bestLoss: Double?
        var bestStep: Int?
        /// Sequences and tokens trained on; nil in checkpoints of earlier versions.
        var sequences: Int?
        var tokens: Int?
        /// How much of `metrics.jsonl` belongs to the steps up to this one.
        var metricsBytes: Int?
        /// The same of the TensorBoard events.
        var events: TensorBoardWriter.Position?
        /// Of the text that the run reads; nil in checkpoints of earlier versions.
        var text: String?
        /// Checksums of the checkpoint's tensors, by file; empty in checkpoints of earlier versions.
        var checksums: [String: String] = [:]

        init(step: Int) { self.step = step }

        /// Reads `trainer_state.json`.
        ///
        /// - Throws: `TrainingError.cannotResume` naming the key.
        init(contentsOfFile path: String, run: String) throws {
            let json = try JSONValue(contentsOfFile: path)
            func fail(_ key: String, _ expected: String) -> TrainingError {
                let found = json[key].map { $0.serialized() } ?? "absent"
                return .cannotResume(
                    folder: run, reason: "\(path): \"\(key)\" is \(found), expected \(expected)")
            }
            func count(_ key: String) throws -> Int? {
                guard let value = json[key], !value.isNull else { return nil }
                guard let number = value.intValue, number >= 0, number < 1 << 53 else {
                    throw fail(key, "a number of 0 or more")
                }
                return number
            }
            guard let step = try count("step") else { throw fail("step", "a number of 0 or more") }
            self.step = step
            if let value = json["best_loss"], !value.isNull {
                guard let loss = value.doubleValue, loss.isFinite, loss >= 0 else {
                    throw fail("best_loss", "a loss of 0 or more")
                }
                bestLoss = loss
            }
            bestStep = try count("best_step")
            guard bestStep ?? 0 <= step else { throw fail("best_step", "at most the step \(step)") }
            sequences = try count("sequences")
            tokens = try count("tokens")
            text = json["text"]?.stringValue
            let stored = json["checksums"] ?? .object([])
            guard let members = stored.members else {
                throw fail("checksums", "names of files with their checksums")
            }
            for member in members {
                guard let value = member.value.stringValue, !member.key.contains("/") else {
                    throw fail("checksums", "names of files with their checksums")
                }
                checksums[member.key] = value
            }
        }

        var json: JSONValue {
            func number(_ value: Int?) -> JSONValue { value.map { .integer($0) } ?? .null }
            return [
                "step": .integer(step), "best_loss": bestLoss.map { .number($0) } ?? .null,
                "best_step": number(bestStep), "sequences": number(sequences), "tokens": number(tokens),
                "text": text.map { .string($0) } ?? .null,
                "checksums": .object(
                    checksums.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) }),
            ]
        }

        /// Reads `log_positions.json`. Without it, a resumed run finds the lines of its steps by their content.
        mutating func readLogs(_ path: String) throws {
            guard FileManager.default.fileExists(atPath: path) else { return }
            let json = try JSONValue(contentsOfFile: path)
            if let bytes = json["metrics_bytes"]?.intValue, bytes >= 0 { metricsBytes = bytes }
            if let name = json["event_file"]?.stringValue, name.hasPrefix("events."), !name.contains("/"),
                let bytes = json["event_bytes"]?.intValue
            {
                events = TensorBoardWriter.Position(name: name, bytes: bytes)
            }
        }

        /// How far the logs had been written. It lies in a file of its own, because speeds and times in the logs
        /// differ from one run to its repetition, and the rest of a checkpoint does not.
        var logs: JSONValue {
            [
                "metrics_bytes": metricsBytes.map { .integer($0) } ?? .null,
                "event_file": events.map { .string($0.name) } ?? .null,
                "event_bytes": events.map { .integer($0.bytes) } ?? .null,
            ]
        }
    }

    private static func name(ofStep step: Int) -> String {
        "step-" + String(repeating: "0", count: max(0, 8 - "\(step)".count)) + "\(step)"
    }

    /// Where the checkpoint of a step is, or will be.
    func checkpointPath(step: Int) -> String { checkpointsPath + "/" + Self.name(ofStep: step) }

    /// Saves model, the optimizer's moments and state, with the files of a folder that no training changes; then deletes old checkpoints.
    @discardableResult
    func save(
        model: MonetLanguageModel, moments: [(name: String, tensor: Tensor)], state: State,
        configuration: RunConfiguration, companions: String?, tunedFrom: TunedOrigin?, tokenizerPath: String,
        keepLast: Int
    ) throws -> String {
        let name = Self.name(ofStep: state.step)
        let target = checkpointsPath + "/" + name
        try AtomicFile.writeFolder(target, replacing: Checkpoint.folder) { folder in
            if let companions {
                // What experts mean may change; adapters of attention leave them as they are.
                let stale = [TunedOrigin.fileName] + (model.adapters == nil ? [ReservedExperts.fileName] : [])
                try Checkpoint.copyCompanions(from: companions, to: folder, excluding: Set(stale))
            }
            if model.adapters != nil, let base = configuration.initialCheckpoint {
                let path = URL(fileURLWithPath: base).standardizedFileURL.path
                try AdapterFolder.write(model, base: path, to: folder)
            } else {
                try Checkpoint.write(model, dtype: .float32, to: folder)
            }
            try TokenizerFiles.install(
                from: tokenizerPath, into: folder, contextLength: model.configuration.contextLength)
            try tunedFrom?.write(to: folder)
            if let template = configuration.chatTemplate {
                try AtomicFile.write(template, to: folder + "/chat_template.jinja")
            }
            if let reserved = try configuration.reservedExperts() {
                try AtomicFile.write(
                    reserved.json.serialized(pretty: true) + "\n",
                    to: folder + "/" + ReservedExperts.fileName)
            }
            try SafetensorsWriter.write(moments, to: folder + "/optimizer.safetensors")
            var state = state
            state.checksums = try Self.checksums(folder)
            try AtomicFile.write(
                state.json.serialized(pretty: true) + "\n", to: folder + "/trainer_state.json")
            try AtomicFile.write(
                state.logs.serialized(pretty: true) + "\n", to: folder + "/log_positions.json")
        }
        try linkNewest(best: state.bestStep)
        let all = checkpoints()
        for old in all.dropLast(keepLast) where old.step != state.bestStep {
            try AtomicFile.removeFolder(old.path)
        }
        removeLeftovers()
        return target
    }

    /// Checksums of the files of tensors in a folder.
    private static func checksums(_ folder: String) throws -> [String: String] {
        let names = try FileManager.default.contentsOfDirectory(atPath: folder)
        return try Dictionary(
            uniqueKeysWithValues: names.filter { $0.hasSuffix(".safetensors") }.map { name in
                (name, try Checksum(contentsOfFile: folder + "/" + name).text)
            })
    }

    /// Points `latest` and `best` to the newest and the best checkpoint, also after a kill between a checkpoint
    /// and its links.
    func linkNewest(best: Int?) throws {
        let all = checkpoints()
        func link(_ name: String, to checkpoint: String) throws {
            try self.link(name, to: "checkpoints/" + checkpoint.lastPathName)
        }
        if let newest = all.last { try link("latest", to: newest.path) }
        if let found = all.first(where: { $0.step == best }) { try link("best", to: found.path) }
    }

    /// Removes incomplete folders of runs that were killed.
    private func removeLeftovers() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: checkpointsPath)) ?? []
        where name.contains(".tmp-") || name.contains(".old-") {
            try? FileManager.default.removeItem(atPath: checkpointsPath + "/" + name)
        }
    }

    /// Removes TensorBoard events of a process that was killed before its first checkpoint.
    func removeEvents() throws {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        where name.hasPrefix("events.out.tfevents.") {
            guard unlink(path + "/" + name) == 0 else {
                throw FileError.unwritable(
                    path: path + "/" + name, reason: String(cString: strerror(errno)))
            }
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
        var state = try State(contentsOfFile: checkpoint + "/trainer_state.json", run: path)
        guard checkpoint.lastPathName == Self.name(ofStep: state.step) else {
            throw TrainingError.cannotResume(
                folder: path, reason: "\(checkpoint)/trainer_state.json is of step \(state.step)")
        }
        try state.readLogs(checkpoint + "/log_positions.json")
        for (name, checksum) in state.checksums.sorted(by: { $0.key < $1.key }) {
            let file = checkpoint + "/" + name
            guard try Checksum(contentsOfFile: file).text == checksum else {
                throw TrainingError.cannotResume(
                    folder: path,
                    reason: "\(file) is damaged: its checksum is another than it was written with")
            }
        }
        return (
            try AdapterFolder.isOne(checkpoint)
                ? AdapterFolder.load(checkpoint, for: .training)
                : MonetLanguageModel.load(checkpoint, for: .training),
            try SafetensorsFile(path: checkpoint + "/optimizer.safetensors"), state
        )
    }

    /// Removes metrics of steps after a checkpoint, which a resumed run writes again.
    func truncateMetrics(after state: State?) throws {
        guard FileManager.default.fileExists(atPath: metricsPath) else { return }
        if let bytes = state?.metricsBytes, try MappedFile(path: metricsPath).bytes.count >= bytes {
            return try FileWriter(path: metricsPath, keeping: bytes).finish()
        }
        let step = state?.step ?? -1
        let lines = try TextFile.read(metricsPath).split(separator: "\n").filter { line in
            // An incomplete line, left by a process that was killed, does not parse and is removed too.
            guard let json = try? JSONValue(parsing: String(line), source: metricsPath) else { return false }
            return (json["step"]?.intValue ?? .max) <= step
        }
        try AtomicFile.write(lines.map { $0 + "\n" }.joined(), to: metricsPath)
    }
}
