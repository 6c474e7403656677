import ArgumentParser
import Foundation
import MonetEvaluation
import MonetFoundation
import MonetText

struct UnlearnTOFUCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tofu",
        abstract:
            "TOFU: questions on fictitious authors to forget and to keep, on real authors and the world.",
        discussion: """
            EXAMPLES
              monet unlearn tofu --model M --data benchmarks --specialists --reference never-saw-forget10
              monet unlearn tofu --model M --beside rmu=checkpoints/rmu --data benchmarks --forget forget05

            The data is locuslab/TOFU of the hub (Scripts/fetch-benchmarks --tasks tofu). With --reference, a model that \
            never saw the authors to forget, the table has the forget quality.
            """)

    enum Authors: String, ExpressibleByArgument, CaseIterable {
        case forget01, forget05, forget10
    }

    @OptionGroup var subjectOptions: UnlearnSubjectOptions
    @Option(help: ArgumentHelp("The folder with the benchmark's data.", valueName: "dir"))
    var data: String
    @Option(help: "The authors to forget.")
    var forget: Authors = .forget10
    @Option(help: ArgumentHelp("Questions of each set, the first ones.", valueName: "n"))
    var limit: Int?
    @Option(name: [.customShort("n"), .long], help: "The most tokens of an answer.")
    var maxNewTokens = TOFUEvaluation.Plan().maxNewTokens
    @Option(help: ArgumentHelp("A model that never saw what is to be forgotten.", valueName: "dir"))
    var reference: String?
    @OptionGroup var output: UnlearnOutputOptions

    func validate() throws {
        for (name, value) in [("limit", limit ?? 1), ("max-new-tokens", maxNewTokens)]
        where !(1...1 << 20).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 to \(1 << 20)")
        }
    }

    func run() throws {
        try output.overwriting.check(output.html)
        Interruption.install()
        var plan = TOFUEvaluation.Plan()
        (plan.forget, plan.limit, plan.maxNewTokens) = (forget.rawValue, limit, maxNewTokens)
        let questions = try TOFUEvaluation.Data(DatasetFolder(data), plan)
        let subjects = try subjectOptions.load(output.common) {
            try UnlearnSubjectOptions.encoded(questions.labelled, by: $0)
        }
        let other = try subjectOptions.reference(reference, output.common)
        var known: TOFUEvaluation?
        try output.examine(
            subjects, count: questions.count, title: "TOFU (\(forget.rawValue)), \(subjects.all[0].name)",
            definitions: TOFUEvaluation.definitions, corpus: "locuslab/TOFU (\(data))"
        ) { subject, progress in
            if known == nil {
                known = try other.map { try TOFUEvaluation(questions, plan, of: $0, progress: progress) }
            }
            return try TOFUEvaluation(questions, plan, of: subject, progress: progress).measures(
                reference: known)
        }
    }
}

struct UnlearnMUSECommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "muse",
        abstract: "MUSE: memory of words and facts of news or books, and whether membership shows.",
        discussion: """
            EXAMPLES
              monet unlearn muse --model M --data benchmarks --specialists --reference never-saw-news
              monet unlearn muse --model M --beside rmu=checkpoints/rmu --data benchmarks --texts Books

            The data is muse-bench/MUSE-News or MUSE-Books of the hub (Scripts/fetch-benchmarks --tasks muse-news,muse-books). With \
            --reference, a model that never saw the texts to forget, the table has PrivLeak.
            """)

    enum Texts: String, ExpressibleByArgument, CaseIterable {
        case news = "News"
        case books = "Books"
    }

    @OptionGroup var subjectOptions: UnlearnSubjectOptions
    @Option(help: ArgumentHelp("The folder with the benchmark's data.", valueName: "dir"))
    var data: String
    @Option(help: "The texts: News or Books.")
    var texts: Texts = .news
    @Option(help: ArgumentHelp("Texts and questions of each kind, the first ones.", valueName: "n"))
    var limit: Int?
    @Option(help: ArgumentHelp("A model that never saw what is to be forgotten.", valueName: "dir"))
    var reference: String?
    @OptionGroup var output: UnlearnOutputOptions

    func validate() throws {
        if let limit, !(1...1 << 20).contains(limit) {
            throw ValidationError("--limit is \(limit), expected 1 to \(1 << 20)")
        }
    }

    func run() throws {
        try output.overwriting.check(output.html)
        Interruption.install()
        var plan = MUSEEvaluation.Plan()
        (plan.corpus, plan.limit) = (texts.rawValue, limit)
        let read = try MUSEEvaluation.Data(DatasetFolder(data), plan)
        let subjects = try subjectOptions.load(output.common) {
            try UnlearnSubjectOptions.encoded(read.labelled, by: $0)
        }
        let other = try subjectOptions.reference(reference, output.common)
        var known: MUSEEvaluation?
        try output.examine(
            subjects, count: read.count, title: "MUSE-\(texts.rawValue), \(subjects.all[0].name)",
            definitions: MUSEEvaluation.definitions, corpus: "\(plan.dataset) (\(data))"
        ) { subject, progress in
            if known == nil { known = try other.map { try MUSEEvaluation(read, of: $0, progress: progress) } }
            return try MUSEEvaluation(read, of: subject, progress: progress).measures(reference: known)
        }
    }
}
