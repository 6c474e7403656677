import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText
import MonetTraining

@main
struct MonetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "monet",
        abstract: "Language models of experts that one can read, find and cut out.",
        discussion: """
            Trains, runs and opens up Monet models (Mixture of Monosemantic Experts for \
            Transformers, arXiv 2412.04139), and reads the checkpoints published under MonetLLM.

            EXAMPLES
              monet generate --model checkpoints/demo --prompt "The sea"
              monet trace --model checkpoints/demo "A parrot is a tropical bird"
              monet train run.yaml --out runs/first

            Results go to standard output, everything else to standard error. Exit codes: 0 for \
            success, 1 for a failure, 64 for a wrong command line.
            """,
        version: "0.1.0",
        subcommands: [
            TrainCommand.self, TokenizerCommand.self, CorpusCommand.self, GenerateCommand.self,
            ChatCommand.self,
            TraceCommand.self, IndexCommand.self, ExpertsCommand.self, MaskCommand.self, EditCommand.self,
            UnlearnMatrixCommand.self, MonosemanticityCommand.self, ToxicityCommand.self,
            InfoCommand.self, ForwardCommand.self, PerplexityCommand.self,
            ConvertCommand.self,
            InitCommand.self, BenchCommand.self,
        ])

    static func main() {
        // A file beyond the limit on sizes is an error of the write, as a full disk is, not a kill.
        signal(SIGXFSZ, SIG_IGN)
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let error where isExpected(error) {
            StandardError.write("error: \(error)\n")
            Foundation.exit(EXIT_FAILURE)
        } catch {
            exit(withError: error)
        }
    }

    /// Whether an error is one of the package's, whose description says what to do.
    private static func isExpected(_ error: any Error) -> Bool {
        switch error {
        case is FileError, is ComputeError, is ModelError, is TextError, is TrainingError, is GenerationError,
            is InsightError, is EvaluationError, is CommandError:
            true
        default: false
        }
    }
}

/// Failures of the command line itself, which are not about its syntax.
enum CommandError: Error, CustomStringConvertible {
    case malformedInput(source: String, reason: String)
    case missingTokenizer(folder: String, purpose: String)

    var description: String {
        switch self {
        case .malformedInput(let source, let reason): "\(source): \(reason)"
        case .missingTokenizer(let folder, let purpose):
            "\(folder): there is no tokenizer.model, which \(purpose) needs; token ids do without"
        }
    }
}
