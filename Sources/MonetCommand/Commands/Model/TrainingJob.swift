import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetProcesses
import MonetTraining

/// A run of `train` or `tune`, by this process alone or together with others.
struct TrainingJob {
    let directory: RunDirectory
    let resuming: Bool
    let threads: Int?
    let isQuiet: Bool
    /// What goes on with a run that was stopped.
    let resumeCommand: String

    /// Trains to the end and returns the last checkpoint.
    ///
    /// - Throws: what `Trainer` throws, and the exit code of a stopped command.
    func run(_ own: RunConfiguration, _ communicator: any Communicator) throws -> String? {
        // Machines differ: what was fitted to the first one holds for all.
        var configuration = own
        configuration.fitTemplateDate()
        configuration = try Self.configuration(ofFirst: configuration, communicator)
        let backend = try ComputeOptions.backend(
            threads: threads ?? Workers.threadsPerProcess(communicator), shares: configuration.shares,
            precision: configuration.precision)
        let trainer = try Trainer(
            configuration, directory: directory, resuming: resuming, backend: backend,
            communicator: communicator)
        Interruption.install(hangUp: true, termination: true)
        var report = TrainingReport(
            isQuiet: isQuiet || !communicator.isFirst, metrics: resuming ? directory.metricsPath : nil)
        report.note(
            "training on \(backend.name)" + (communicator.isShared ? ", \(communicator.count) processes" : "")
        )
        if communicator.isShared, configuration.gradientFormat != .float32 {
            report.note("gradients are exchanged in \(configuration.gradientFormat.rawValue): inexact")
        }
        let outcome = try trainer.run(shouldStop: { Interruption.isRequested }, report: { report.show($0) })
        report.end()
        report.note("tensors took \(HostMemory.peak.byteText) at most")
        switch outcome {
        case .finished(let checkpoint): return checkpoint
        case .interrupted(let step, let checkpoint):
            if communicator.isFirst {
                StandardError.write(
                    "stopped at step \(step); saved \(checkpoint)\ncontinue with: \(resumeCommand)\n")
            }
            throw Interruption.exitCode
        }
    }

    /// The first process's configuration, on every process.
    private static func configuration(
        ofFirst own: RunConfiguration, _ communicator: any Communicator
    ) throws -> RunConfiguration {
        guard communicator.isShared else { return own }
        let all = try communicator.gather(Data(own.json().serialized().utf8))
        return try RunConfiguration(
            stored: JSONValue(parsing: String(decoding: all[0], as: UTF8.self), source: "process 0"),
            source: "process 0")
    }
}

extension String {
    /// The folder that a link such as a run's `latest` names now: a run keeps it, and a link may name another later.
    var withoutLink: String {
        // A link with a slash at its end is the folder itself.
        var path = self
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path) else {
            return self
        }
        let folder = (path as NSString).deletingLastPathComponent
        return target.hasPrefix("/") || folder.isEmpty ? target : folder + "/" + target
    }
}
