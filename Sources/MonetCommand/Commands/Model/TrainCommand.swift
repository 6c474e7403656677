import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText
import MonetTraining
import Yams

struct TrainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Pretrain a model on a corpus.",
        discussion: """
            EXAMPLES
              monet train --preset nano-vd --corpus corpora/demo --steps 500 --out runs/nano
              monet train run.yaml --out runs/first --learning-rate 1e-3
              monet train --resume --out runs/first
              monet train run.yaml --decomposition dense --out runs/llama
              monet train run.yaml --out runs/first --workers 4 --accumulation 4
              mpirun -np 8 --bind-to none monet train run.yaml --out runs/first --accumulation 8

            A run file is YAML or JSON with the settings below (flags have dashes for underscores) and \
            "model": a preset's name, or a mapping of "preset" and the keys of config.json to change. Flags \
            override the file; what neither names is fitted to the model and the number of steps. The vocabulary \
            size is that of the corpus unless the file sets it. Ctrl-C saves and stops; --resume continues, \
            with the same result as an uninterrupted run.

            Several processes, started by --workers, mpirun or srun, share the micro-batches of a step (see \
            --accumulation) and need a common folder. Of equal --accumulation and --batch-size, any number of them gives the same parameters, bit \
            for bit, unless "gradient_exchange" is "bfloat16", which halves what they send and is inexact. Without \
            --accumulation, each gets a part of the batch.

            Settings: \(RunSetting.all.map(\.key).joined(separator: ", ")).
            """)

    @Argument(help: "The run file.")
    var runFile: String?
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The run's folder.", valueName: "dir"))
    var out: String
    @Flag(help: "Continue the run in the folder from its last checkpoint.")
    var resume = false
    @Option(help: "Size and kind of the model, such as nano-vd.")
    var preset: PresetName?
    @Option(help: "Feed-forward layers: vertical, horizontal, or dense with as many parameters.")
    var decomposition: FamilyName?
    @OptionGroup var settings: RunSettingOptions
    @OptionGroup var processes: ProcessOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if resume, runFile != nil || preset != nil || decomposition != nil {
            throw ValidationError(
                "A run that is resumed keeps its model; --resume takes neither a run file nor a preset.")
        }
    }

    func run() throws {
        try processes.run(resumeCommand: "monet train --resume --out \(out)") { try train($0) }
    }

    private func train(_ communicator: any Communicator) throws {
        let directory = RunDirectory(path: out)
        var configuration: RunConfiguration
        if resume {
            configuration = try directory.configuration()
            try applyFlags(to: &configuration)
        } else {
            configuration = try newConfiguration(communicator)
        }
        if let decomposition {
            configuration.model = try configuration.model.converted(to: decomposition.family)
        }
        let job = TrainingJob(
            directory: directory, resuming: resume, threads: processes.threads, isQuiet: common.quiet,
            resumeCommand: "monet train --resume --out \(out)")
        if let checkpoint = try job.run(configuration, communicator), communicator.isFirst {
            try StandardOutput.write(checkpoint + "\n")
        }
    }

    /// The run file's settings, overridden by the flags; what neither names is taken from the corpus or
    /// the checkpoint to start from.
    private func newConfiguration(_ communicator: any Communicator) throws -> RunConfiguration {
        var members: [JSONValue.Member] = []
        if let runFile { members = try Self.readRunFile(runFile).members ?? [] }
        if let preset {
            members.removeAll { $0.key == "model" }
            members.append(.init("model", .string(preset.name)))
        }
        var configuration = RunConfiguration()
        let source = runFile ?? "command line"
        for member in members { try configuration.set(member.key, to: member.value, source: source) }
        try applyFlags(to: &configuration)
        // The run keeps the folder that the name stands for today.
        configuration.initialCheckpoint = try configuration.initialCheckpoint.map {
            try HubCache().resolve($0).withoutLink
        }
        let model = members.first { $0.key == "model" }?.value
        if model == nil, let checkpoint = configuration.initialCheckpoint {
            configuration.model = try Checkpoint.configuration(checkpoint)
        } else if model == nil {
            throw TrainingError.invalidSetting(
                source: source, key: "model", found: "absent",
                expected: "a model in the run file, --preset or --init-from")
        } else if model?["vocab_size"] == nil, !configuration.corpus.isEmpty {
            configuration.model.vocabularySize = try Corpus(folder: configuration.corpus).vocabularySize
        }
        let given = configuration
        configuration.fitDefaults(
            except: Set(members.map(\.key) + (try settings.values().map(\.0))),
            processes: processes.sharing(communicator))
        if configuration.accumulation != given.accumulation, communicator.isFirst, !common.quiet {
            StandardError.write(
                "processes share a step: accumulation \(configuration.accumulation), batch_size "
                    + "\(configuration.batchSize); the same two settings give the same parameters with any number of processes\n"
            )
        }
        return configuration
    }

    private func applyFlags(to configuration: inout RunConfiguration) throws {
        for (key, value) in try settings.values() {
            try configuration.set(key, to: value, source: "command line")
        }
    }

    /// A run file as a mapping.
    private static func readRunFile(_ path: String) throws -> JSONValue {
        let json: JSONValue
        if path.hasSuffix(".json") {
            json = try JSONValue(contentsOfFile: path, readsStreams: true)
        } else {
            json = try YAMLFile.read(path)
        }
        guard json.members != nil else {
            throw TrainingError.invalidSetting(
                source: path, key: "", found: json.kind, expected: "a mapping of settings")
        }
        return json
    }
}

/// The name of a feed-forward family; any other name is a usage error.
struct FamilyName: ExpressibleByArgument {
    let family: any FeedForwardFamily.Type

    init?(argument: String) {
        guard let family = FeedForwardFamilies.named(argument) else { return nil }
        self.family = family
    }

    static var allValueStrings: [String] { FeedForwardFamilies.names }
}
