import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetGeneration
import MonetHub
import MonetInsight
import MonetModel
import MonetServer
import MonetText
import MonetTraining

@main
struct MonetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "monet",
        abstract: "Language models you can inspect and edit, expert by expert.",
        discussion: """
            Trains, runs, inspects and edits Monet models (Mixture of Monosemantic Experts for \
            Transformers, arXiv 2412.04139), and loads the checkpoints published under MonetLLM.

            EXAMPLES
              monet generate --model checkpoints/demo --prompt "The sea"
              monet trace --model checkpoints/demo "A parrot is a tropical bird"
              monet train run.yaml --out runs/first

            Results go to standard output, everything else to standard error. Exit codes: 0 for \
            success, 1 for a failure, 64 for an invalid command line, 130 after Ctrl-C.
            """,
        version: "0.1.0",
        subcommands: [
            TrainCommand.self, TuneCommand.self, RunsCommand.self, TokenizerCommand.self, CorpusCommand.self,
            GenerateCommand.self,
            ChatCommand.self, ServeCommand.self, ExploreCommand.self, DownloadCommand.self,
            TraceCommand.self, ActivationsCommand.self, AttributeCommand.self, PatchCommand.self,
            PairsCommand.self, ExplainCommand.self, ExportCommand.self,
            IndexCommand.self, SteerCommand.self,
            ExpertsCommand.self,
            MaskCommand.self, EditCommand.self,
            EvalCommand.self, UnlearnMatrixCommand.self, UnlearnCommand.self, MonosemanticityCommand.self,
            ToxicityCommand.self, ReportCommand.self,
            InfoCommand.self, ForwardCommand.self, PerplexityCommand.self,
            ConvertCommand.self,
            InitCommand.self, BenchCommand.self,
        ])

    static func main() async {
        StandardStreams.reserve()
        Interruption.reset()
        ShrinkingFiles.report()
        // Exceeding the file size limit then makes a write fail, as a full disk does, and kills nothing.
        signal(SIGXFSZ, SIG_IGN)
        do {
            var command = try parsed(Array(CommandLine.arguments.dropFirst()))
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let error where isExpected(error) {
            StandardError.write("error: \("\(error)".withoutControls)\(hint(for: error))\n")
            Foundation.exit(EXIT_FAILURE)
        } catch {
            end(with: error)
        }
    }

    /// The command that arguments name, or an error that says which of them does not exist.
    private static func parsed(_ arguments: [String]) throws -> any ParsableCommand {
        var arguments = arguments
        if arguments.contains(where: { $0.hasPrefix("-") && Double($0) != nil }) {
            arguments = try CommandLineCheck().joiningNegativeValues(arguments)
        }
        do {
            return try parseAsRoot(arguments)
        } catch  where exitCode(for: error) == .validationFailure {
            guard let complaint = try CommandLineCheck().complaint(about: arguments) else { throw error }
            StandardError.write("error: \(complaint)\n")
            Foundation.exit(ExitCode.validationFailure.rawValue)
        }
    }

    /// Ends as `exit(withError:)` does, with results that cannot be written as an error.
    private static func end(with error: any Error) -> Never {
        let code = exitCode(for: error)
        var text = fullMessage(for: error)
        if text.hasPrefix("Error: ") { text = "error: " + text.dropFirst("Error: ".count) }
        if !text.isEmpty { text += "\n" }
        if code == .success {
            do {
                try StandardOutput.write(text)
            } catch {
                StandardError.write("error: \(error)\n")
                Foundation.exit(EXIT_FAILURE)
            }
        } else {
            StandardError.write(text)
        }
        Foundation.exit(code.rawValue)
    }

    /// The flag that helps, which the libraries do not know.
    private static func hint(for error: any Error) -> String {
        switch error {
        case FileError.alreadyExists: "; --overwrite replaces it"
        case FileError.unreadable(let name, let reason) where reason.contains("no complete snapshot"):
            "; 'monet download \(name)' gets it"
        case InsightError.foreignState: "; delete the file or give --overwrite to start again"
        case EvaluationError.noIsolation(let reason) where reason.hasPrefix("programs cannot be isolated"):
            "; --unsafe-execution runs them with nothing but limits"
        case EvaluationError.foreignRecords: "; --overwrite discards them, or write elsewhere"
        case TrainingError.runExists: "; continue it with --resume or choose another folder"
        default: ""
        }
    }

    /// Whether an error is one of the package's own, whose descriptions say what to do.
    private static func isExpected(_ error: any Error) -> Bool {
        switch error {
        case is FileError, is ComputeError, is ModelError, is TextError, is TrainingError, is GenerationError,
            is InsightError, is EvaluationError, is TaskError, is ServerError, is HubError, is CommandError:
            true
        default: false
        }
    }
}

/// Failures of the command itself that are not syntax errors of its command line.
enum CommandError: Error, CustomStringConvertible {
    case malformedInput(source: String, reason: String)
    case missingTokenizer(folder: String, purpose: String)

    var description: String {
        switch self {
        case .malformedInput(let source, let reason): "\(source): \(reason)"
        case .missingTokenizer(let folder, let purpose):
            "\(folder): there is no tokenizer.model, which \(purpose) needs; token ids work without one"
        }
    }
}
