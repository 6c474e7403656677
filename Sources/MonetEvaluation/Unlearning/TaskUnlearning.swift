import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

/// What each category of benchmarks loses when the experts of each category are removed (figure 3 of the paper).
///
/// The questions themselves, without examples, tell which experts are a category's specialists, as in the paper. In the
/// scores, a "token" is a document, a hit a right answer, and the negative log-likelihood that of the right choice
/// among the choices.
public struct TaskUnlearning: Sendable {
    /// What to measure.
    public struct Plan: Sendable {
        /// How documents are divided.
        public var categories = TaskCategories.mmluPro
        /// Which experts are a category's specialists.
        public var criterion = SpecialistCriterion()
        /// Random masks, as large and firing as often, to compare each with.
        public var draws = 5
        /// Documents of each task, the first ones.
        public var limit: Int?

        /// MMLU-Pro's categories, the paper's ratio of 2, and five random masks.
        public init() {}
    }

    /// What was measured.
    public let plan: Plan
    /// The matrix.
    public let matrix: UnlearningMatrix
    /// The accuracy of guessing in each category.
    public let chance: [Double]
    /// Units of the model.
    public let units: Int

    /// The progress: evaluations done and their number, and the progress of the present one.
    public struct Progress: Sendable {
        public let evaluation: Int
        public let evaluations: Int
        public let documents: Int
        public let total: Int
    }

    /// Whether the questions are programs to be written: a hit is one that passes, and there are no losses.
    public let arePrograms: Bool
    /// Programs for each problem.
    private let samples: Int

    /// Measures tasks of multiple choice, or of programs.
    ///
    /// - `isolation`: what separates programs that the model writes from this machine.
    /// - `progress`: called after each pass; false stops.
    /// - Throws: `CancellationError` if stopped, `TaskError`, `EvaluationError`, `InsightError`, `ModelError`.
    public init(
        _ plan: Plan, tasks: [EvaluationTask], model: MonetLanguageModel, tokenizer: Tokenizer,
        backend: any Backend = CPUBackend(isBatchInvariant: true), isolation: ProgramIsolation? = nil,
        progress: (Progress) -> Bool = { _ in true }
    ) throws {
        arePrograms = tasks.first?.definition.runsPrograms ?? false
        samples = arePrograms ? tasks.first?.definition.repeats ?? 1 : 1
        for task in tasks
        where arePrograms
            ? !task.definition.runsPrograms : task.definition.outputType != .multipleChoice
        {
            throw EvaluationError.invalidSetting(
                name: "the task \(task.definition.name)", found: task.definition.outputType.rawValue,
                expected: "multiple_choice in all, for a matrix of accuracies, or programs in all")
        }
        var categories: [[String]] = []
        var texts: [(category: String, text: String)] = []
        for task in tasks {
            let items = try task.items(limit: plan.limit)
            let bare = try task.withoutExamples.items(limit: plan.limit)
            categories.append(
                try items.map { try plan.categories.category(of: $0.document, in: task, at: $0.index) })
            texts += zip(categories[categories.count - 1], bare).map {
                ($0, $1.requests.first?.context ?? "")
            }
        }
        var names: [String] = []
        for name in categories.joined() where !names.contains(name) { names.append(name) }
        let labels = plan.categories.ordered(names)
        guard labels.count > 1 else {
            throw EvaluationError.invalidSetting(
                name: "the number of categories", found: "\(labels.count)", expected: "two or more")
        }
        let places = Dictionary(uniqueKeysWithValues: labels.enumerated().map { ($1, $0) })
        let context = model.configuration.contextLength
        let documents = try LabelledDocuments(
            tokens: try texts.map {
                Array(try tokenizer.encode($0.text, addBegin: tokenizer.addsBegin).suffix(context))
            }, labels: texts.map { [places[$0.category] ?? -1] },
            labelSets: [.init(name: "category", labels: labels)], origin: "the questions")
        let statistics = try LabelStatistics(of: documents, model: model, backend: backend)
        let masks = labels.indices.map { statistics.specialists(of: $0, plan.criterion) }
        let evaluations = 1 + labels.count * (1 + plan.draws)
        var number = 0
        func scores(_ mask: UnitMask?) throws -> [HeldOutScore] {
            let run = EvaluationRun(
                model: model, tokenizer: tokenizer, backend: backend, mask: mask, tasks: tasks,
                isolation: isolation)
            let results = try run.results(limit: plan.limit) {
                progress(
                    Progress(
                        evaluation: number, evaluations: evaluations, documents: $0.done, total: $0.total))
            }
            number += 1
            var scores = labels.map { _ in HeldOutScore() }
            for (result, own) in zip(results.tasks, categories) {
                for item in result.items {
                    guard let place = places[own[item.item.index]] else { continue }
                    scores[place] = scores[place] + HeldOutScore(item)
                }
            }
            return scores
        }
        let baseline = try scores(nil)
        func row(_ mask: UnitMask) throws -> UnlearningMatrix.Row {
            UnlearningMatrix.Row(
                removed: mask.count, meanFrequency: statistics.firingCounts.meanFrequency(of: mask),
                scores: mask.count == 0 ? baseline : try scores(mask))
        }
        let rows = try masks.map(row)
        let controls = try masks.map { mask in
            try (0..<plan.draws).map { try row(statistics.firingCounts.matchedMask(mask, seed: UInt64($0))) }
        }
        self.plan = plan
        matrix = UnlearningMatrix(labels: labels, baseline: baseline, rows: rows, controls: controls)
        units = model.units.count
        var chances = labels.map { _ in (sum: 0.0, count: 0) }
        for (task, own) in zip(tasks, categories) {
            for item in try task.withoutExamples.items(limit: plan.limit) {
                guard let place = places[own[item.index]] else { continue }
                chances[place].sum += item.choices.isEmpty ? 0 : 1 / Double(item.choices.count)
                chances[place].count += 1
            }
        }
        chance = chances.map { $0.sum / Double(max(1, $0.count)) }
    }

    /// Heat maps of the accuracy and of the loss.
    public var pictures: [HeatMap] {
        if arePrograms { return [matrix.heatMap(.accuracy, title: "Decrease of pass@1, percentage points")] }
        return [
            matrix.heatMap(.accuracy, title: "Decrease of the accuracy, percentage points"),
            matrix.heatMap(.loss, title: "Increase of −log p of the right choice, nats per question"),
        ]
    }

    /// Rows of cells: each category's questions, accuracy, standard error and guessing, with its specialists.
    public var baselineTable: [[String]] {
        func number(_ value: Double) -> String { String(format: "%.4f", value) }
        let head =
            arePrograms
            ? ["Language", "Programs", "pass@1", "Stderr", "Chance", "Specialists"]
            : ["Category", "Questions", "Accuracy", "Stderr", "Chance", "Specialists"]
        return [head]
            + matrix.labels.indices.map { place in
                let score = matrix.baseline[place]
                // Programs for one problem are not independent.
                let count = score.tokens / max(1, samples)
                let error = (score.accuracy * (1 - score.accuracy) / Double(max(1, count - 1)))
                    .squareRoot()
                return [
                    matrix.labels[place], score.tokens.grouped, number(score.accuracy), "± " + number(error),
                    number(chance[place]), matrix.rows[place].removed.grouped,
                ]
            }
    }

    /// The outcome in sentences.
    public var notes: [String] {
        let (accuracy, loss) = (matrix.summary(.accuracy), matrix.summary(.loss))
        func points(_ value: Double) -> String { String(format: "%+.1f", -100 * value) }
        var text =
            "Specialists by a ratio of \(plan.criterion.ratio) or more: on average "
            + "\(String(format: "%.0f", accuracy.removed)) of \(units.grouped) removed; "
            + "\(arePrograms ? "pass@1" : "accuracy") \(points(accuracy.target)) points on the target, "
            + "\(points(accuracy.others)) on the others"
        if !arePrograms {
            text +=
                "; −log p of the right choice \(String(format: "%+.4f", loss.target)) and "
                + String(format: "%+.4f", loss.others)
        }
        if let random = accuracy.random {
            text +=
                "; random experts, as many and firing as often, \(points(random.mean)) ± "
                + "\(String(format: "%.1f", 100 * random.deviation)) points"
            if let nats = loss.random, !arePrograms {
                text +=
                    " and \(String(format: "%+.4f", nats.mean)) ± \(String(format: "%.4f", nats.deviation))"
            }
            text += " on the target (\(plan.draws) draws)"
        }
        var lines = [text + "."]
        let guessed = matrix.labels.indices.filter { place in
            let score = matrix.baseline[place]
            let error = (chance[place] * (1 - chance[place]) / Double(max(1, score.tokens))).squareRoot()
            return abs(score.accuracy - chance[place]) <= 2 * error
        }
        if !guessed.isEmpty {
            lines.append(
                (arePrograms
                    ? "Not a program passes before anything is removed: "
                    : "Within two standard errors of guessing before anything is removed: ")
                    + guessed.map { matrix.labels[$0] }.joined(separator: ", ")
                    + ". Their accuracy has nothing to lose.")
        }
        return lines
    }

    /// What the numbers of a page mean.
    public var definitions: [String] {
        if arePrograms {
            return [
                "A row is a language whose specialists are removed, a column a language that is measured. A specialist "
                    + "is an expert whose mean routing score on the language's prompts is at least "
                    + "\(plan.criterion.ratio) times that on any other's, and which fires on at least "
                    + "\(plan.criterion.minimumCount.grouped) of their tokens. pass@1: the share of programs that pass "
                    + "their tests. Random: as many other experts of each group that fire about as often, the mean over "
                    + "\(plan.draws) draws, ± the standard deviation of a draw."
            ]
        }
        return [
            "A row is a category whose specialists are removed, a column a category that is measured. A specialist is "
                + "an expert whose mean routing score on the category's questions is at least \(plan.criterion.ratio) "
                + "times that on any other category's, and which fires on at least "
                + "\(plan.criterion.minimumCount.grouped) of their tokens.",
            "Accuracy: the share of questions whose right choice has the largest log-likelihood. −log p of the right "
                + "choice: of the choices' likelihoods as they are, normalized over the choices. Red is damage. Random: "
                + "as many other experts of each group that fire about as often, the mean over \(plan.draws) draws, ± "
                + "the standard deviation of a draw.",
        ]
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        [
            "ratio": .number(plan.criterion.ratio), "minimum_count": .integer(plan.criterion.minimumCount),
            "draws": .integer(plan.draws), "chance": .array(chance.map { .number($0) }),
            "experts": matrix.json(),
        ]
    }
}

extension HeldOutScore {
    /// One question of multiple choice.
    fileprivate init(_ item: ScoredItem) {
        self.init()
        if case .programs(let programs)? = item.responses.first {
            tokens = programs.count
            hits = programs.count { $0.status == .passed }
            return
        }
        let values = item.responses.prefix(item.item.choices.count).map { response -> Double in
            if case .logLikelihood(let value, _) = response { value } else { -.infinity }
        }
        guard let gold = item.item.gold.first, values.indices.contains(gold), let largest = values.max()
        else { return }
        tokens = 1
        hits = item.item.gold.contains(values.firstIndex(of: largest) ?? -1) ? 1 : 0
        negativeLogLikelihood = largest + log(values.reduce(0) { $0 + exp($1 - largest) }) - values[gold]
    }
}
