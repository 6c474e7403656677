import ArgumentParser
import Foundation
import MonetEvaluation
import MonetFoundation
import MonetText

struct CorpusQuestionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "questions",
        abstract: "Make a benchmark of held-out documents: which text goes on after a beginning?",
        discussion: """
            EXAMPLES
              monet corpus questions runs/demo/corpus --out runs/questions
              monet eval --model checkpoints/demo --tasks runs/questions/questions.yaml --data runs/questions
              monet unlearn-matrix --model checkpoints/demo --tasks runs/questions/questions.yaml \\
                  --data runs/questions --categories label

            Four choices, of which three are how other documents of the same label go on. The folder gets \
            questions.jsonl and a task file of lm-evaluation-harness, which that program reads, too.
            """)

    @Argument(help: ArgumentHelp("The corpus folder.", valueName: "dir"))
    var corpus: String
    @Option(help: ArgumentHelp("The folder for questions and task file.", valueName: "dir"))
    var out: String
    @Option(help: "Questions of each label.")
    var perLabel = CorpusQuestions.Plan().perLabel
    @Option(help: "Tokens of a beginning.")
    var contextTokens = CorpusQuestions.Plan().contextTokens
    @Option(help: "Tokens of a choice.")
    var choiceTokens = CorpusQuestions.Plan().choiceTokens
    @Option(help: "Seed of the choice of documents and of the order of answers.")
    var seed = CorpusQuestions.Plan().seed
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        for (name, value) in [
            ("per-label", perLabel), ("context-tokens", contextTokens), ("choice-tokens", choiceTokens),
        ] where !(1...1 << 20).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 to \(1 << 20)")
        }
    }

    func run() throws {
        let (data, task) = (out + "/questions.jsonl", out + "/questions.yaml")
        if FileManager.default.fileExists(atPath: out) { try overwriting.check(data, task) }
        let folder = try Corpus(folder: corpus)
        var plan = CorpusQuestions.Plan()
        (plan.perLabel, plan.contextTokens, plan.choiceTokens, plan.seed) = (
            perLabel, contextTokens, choiceTokens, seed
        )
        let questions = try CorpusQuestions(
            plan, corpus: folder, tokenizer: Tokenizer(path: corpus + "/tokenizer.model"))
        try AtomicFile.createFolder(out)
        try AtomicFile.write(questions.rows.map { $0.serialized() + "\n" }.joined(), to: data)
        try AtomicFile.write(
            CorpusQuestions.taskFile(name: "questions", data: "questions.jsonl"), to: task)
        if common.quiet { return }
        if !questions.skipped.isEmpty {
            StandardError.write(
                "fewer than four held-out documents that are long enough: \(questions.skipped.joined(separator: ", "))\n"
            )
        }
        StandardError.write("wrote \(questions.rows.count.grouped) questions to \(data), and \(task)\n")
    }
}
