import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

/// Who is examined: a model, the same without some experts, and other models.
struct UnlearnSubjectOptions: ParsableArguments {
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var masking: MaskOptions
    @Option(
        help: ArgumentHelp(
            "Another checkpoint to examine, such as one that was unlearned by RMU. May be repeated.",
            valueName: "[name=]dir"))
    var beside: [String] = []
    @Flag(help: "Examine the model without the specialists of what is to be forgotten, too.")
    var specialists = false
    @OptionGroup var criterion: SpecialistOptions
    @Option(help: "Random masks, as large and firing as often, to compare the specialists with.")
    var random = 5
    @OptionGroup var compute: EvaluationComputeOptions

    func validate() throws {
        if !(0...100).contains(random) { throw ValidationError("--random is \(random), expected 0 to 100") }
    }

    /// Who is examined, and who else only for comparison with the specialists.
    struct Subjects {
        let all: [UnlearningSubject]
        let masks: [UnitMask?]
        /// For the specialists.
        let draws: [(subject: UnlearningSubject, mask: UnitMask)]
        /// Stands in the place of random masks.
        let specialists: String?

        /// - Throws: `CommandError` for a model with another tokenizer than that with which documents were encoded.
        func requireTokenizer(of own: UnlearningSubject) throws {
            for other in all { try other.tokenizer.require(sameAs: own.tokenizer) }
        }
    }

    /// - `labelled`: texts to forget and to keep, from which the specialists are determined.
    func load(
        _ common: CommonOptions, labelled: (Tokenizer) throws -> (forget: [[Int32]], retain: [[Int32]])
    ) throws -> Subjects {
        let own = try Self.open(modelOptions, common, compute, name: nil)
        var (all, masks): ([UnlearningSubject], [UnitMask?]) = ([own.subject], [nil])
        for (name, mask) in try masking.loadEach(for: own.model, common.logger) {
            all.append(own.subject.removing(mask, name: MaskOptions.shownName(name)))
            masks.append(mask)
        }
        var draws: [(subject: UnlearningSubject, mask: UnitMask)] = []
        var name: String?
        if specialists {
            let texts = try labelled(own.tokenizer)
            let context = own.model.configuration.contextLength
            let documents = try LabelledDocuments(
                tokens: (texts.forget + texts.retain).map { Array($0.prefix(context)) },
                labels: texts.forget.map { _ in [0] } + texts.retain.map { _ in [1] },
                labelSets: [.init(name: "unlearning", labels: ["forget", "retain"])],
                origin: "the texts to forget and to keep")
            let statistics = try LabelStatistics(
                of: documents, model: own.model, backend: try compute.backend(own.model)
            ) { _ in !Interruption.isRequested }
            let mask = statistics.specialists(of: 0, criterion.criterion)
            name = "specialists"
            all.append(own.subject.removing(mask, name: "specialists"))
            masks.append(mask)
            draws = (0..<random).map { seed in
                let mask = statistics.firingCounts.matchedMask(mask, seed: UInt64(seed))
                return (own.subject.removing(mask, name: "random"), mask)
            }
        }
        for argument in beside {
            let (name, path) = Self.split(argument)
            let options = try ModelOptions.parse(["--model", path])
            all.append(try Self.open(options, common, compute, name: name).subject)
            masks.append(nil)
        }
        try Self.requireDistinct(all.map(\.name))
        return Subjects(all: all, masks: masks, draws: draws, specialists: name)
    }

    /// - Throws: `ValidationError` for two models of one name.
    static func requireDistinct(_ names: [String]) throws {
        if let twice = names.first(where: { name in names.count { $0 == name } > 1 }) {
            throw ValidationError(
                "two of the models are called \(twice); give checkpoints other names, as --beside NAME=DIR")
        }
    }

    /// Token ids of texts to forget and to keep.
    static func encoded(
        _ texts: (forget: [String], retain: [String]), by tokenizer: Tokenizer
    ) throws -> (forget: [[Int32]], retain: [[Int32]]) {
        (
            try texts.forget.map { try tokenizer.encode($0, addBegin: tokenizer.addsBegin) },
            try texts.retain.map { try tokenizer.encode($0, addBegin: tokenizer.addsBegin) }
        )
    }

    /// A name and a path, or a path alone, whose last part is the name.
    static func split(_ argument: String) -> (name: String, path: String) {
        if let equals = argument.firstIndex(of: "="), equals != argument.startIndex {
            return (String(argument[..<equals]), String(argument[argument.index(after: equals)...]))
        }
        return (argument.lastPathName, argument)
    }

    /// A model that never saw what is to be forgotten.
    func reference(_ path: String?, _ common: CommonOptions) throws -> UnlearningSubject? {
        try path.map {
            try Self.open(ModelOptions.parse(["--model", $0]), common, compute, name: "reference").subject
        }
    }

    /// A model with its tokenizer.
    static func open(
        _ options: ModelOptions, _ common: CommonOptions, _ compute: EvaluationComputeOptions, name: String?
    ) throws -> (model: MonetLanguageModel, tokenizer: Tokenizer, subject: UnlearningSubject) {
        let (model, tokenizer) = try options.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: options.model, purpose: "text")
        }
        let subject = UnlearningSubject(
            name: try name ?? options.title(), model: model, tokenizer: tokenizer,
            backend: try compute.backend(model))
        return (model, tokenizer, subject)
    }
}

/// Where the results of an examination go.
struct UnlearnOutputOptions: ParsableArguments {
    @Flag(help: "JSON instead of a table.")
    var json = false
    @Option(help: ArgumentHelp("Write an HTML page with the table.", valueName: "path"))
    var html: String?
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    /// Examines all subjects, and reports.
    ///
    /// - `count`: what `body` counts for one subject.
    /// - `body`: receives a subject and a function to call with what is done.
    func examine(
        _ subjects: UnlearnSubjectOptions.Subjects, count: Int, title: String, definitions: [String],
        corpus: String,
        _ body: (UnlearningSubject, (Int) -> Bool) throws -> [UnlearningMeasure]
    ) throws {
        var line = ProgressLine(isQuiet: common.quiet)
        let start = Date()
        let total = count * (subjects.all.count + subjects.draws.count)
        var before = 0
        func measured(_ subject: UnlearningSubject, _ mask: UnitMask?) throws -> UnlearningReport.Subject {
            let measures = try body(subject) { done in
                let share = min(1, Double(before + done) / Double(max(1, total)))
                let left = (Date().timeIntervalSince(start) * (1 - share) / max(share, 1e-9)).durationText
                line.show(
                    "\(subject.name)  \((before + done).grouped) of \(total.grouped) texts"
                        + (before + done > 0 ? "  \(left) left" : ""))
                return !Interruption.isRequested
            }
            before += count
            return .init(name: subject.name, removed: mask?.count ?? 0, measures: measures)
        }
        let report: UnlearningReport
        do {
            let own = try zip(subjects.all, subjects.masks).map { try measured($0, $1) }
            let draws = try subjects.draws.map { try measured($0.subject, $0.mask) }
            report = UnlearningReport(
                subjects: own, draws: subjects.specialists.map { draws.isEmpty ? [:] : [$0: draws] } ?? [:])
        } catch is CancellationError {
            line.clear()
            StandardError.write("stopped; nothing was written\n")
            throw Interruption.exitCode
        }
        line.clear()
        if let html {
            let page = report.page(
                title: title, definitions: definitions,
                origin: .ofThisCommand(model: subjects.all[0].name, corpus: corpus))
            try AtomicFile.write(page, to: html)
            if !common.quiet { StandardError.write("wrote \(html)\n") }
        }
        if json { return try StandardOutput.write(report.json()) }
        try StandardOutput.write(alignedTable(report.table))
    }
}

extension Tokenizer {
    /// - Throws: `CommandError.malformedInput` for a tokenizer with another model file.
    func require(sameAs other: Tokenizer) throws {
        guard path == other.path || FileManager.default.contentsEqual(atPath: path, andPath: other.path)
        else {
            throw CommandError.malformedInput(
                source: path,
                reason: "another tokenizer than \(other.path), with which the documents are encoded")
        }
    }
}
