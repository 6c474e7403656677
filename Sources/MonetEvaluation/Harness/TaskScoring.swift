import Foundation
import MonetFoundation
import MonetText

/// What a document's answers are worth under one filter.
package struct ScoredItem: Sendable {
    package let item: TaskItem
    package let responses: [TaskResponse]
    package let filter: String
    /// The answers after the filter.
    package let filtered: [JSONValue]
    /// Values of the metrics, in the order of the harness.
    package let metrics: [(name: String, value: MetricValue)]
}

extension TaskDefinition {
    /// The filters under which answers are worth something; the first answer as it is without any.
    var filterChains: [FilterChain] { filters ?? [.init(name: "none", filters: [.takeFirst])] }

    /// What a document's answers are worth under each filter.
    ///
    /// - Throws: `TaskError.unusableDocument`.
    package func scored(_ item: TaskItem, _ responses: [TaskResponse], hasManyTargets: Bool, name: String)
        throws
        -> [ScoredItem]
    {
        try filterChains.map { chain in
            do {
                let filtered = try responses.map { response -> JSONValue in
                    if case .programs = response { return .array(response.values) }
                    guard case .texts(let texts) = response else { return response.values[0] }
                    var values = texts.map { JSONValue.string($0) }
                    for filter in chain.filters { values = try filter.apply(values, document: item.document) }
                    return values.count == 1 ? values[0] : .array(values)
                }
                return ScoredItem(
                    item: item, responses: responses, filter: chain.name, filtered: filtered,
                    metrics: try metrics(item, responses, filtered, hasManyTargets))
            } catch let error as TaskFilter.Failure {
                throw TaskError.unusableDocument(
                    task: self.name, document: name, reason: "a filter needs \(error.description)")
            } catch let error as PythonExpression.Failure {
                throw TaskError.unusableDocument(task: self.name, document: name, reason: error.description)
            } catch let error as TaskFunction.Failure {
                throw TaskError.unusableDocument(task: self.name, document: name, reason: error.description)
            }
        }
    }

    private func metrics(
        _ item: TaskItem, _ responses: [TaskResponse], _ filtered: [JSONValue], _ hasManyTargets: Bool
    ) throws -> [(name: String, value: MetricValue)] {
        let wanted = Set(metrics.map(\.name))
        func kept(_ values: [(String, MetricValue)]) -> [(name: String, value: MetricValue)] {
            values.filter { wanted.contains($0.0) }.map { (name: $0.0, value: $0.1) }
        }
        switch outputType {
        case .logLikelihood:
            guard case .logLikelihood(let value, let isGreedy) = responses[0] else { return [] }
            return kept([("perplexity", .number(value)), ("acc", .number(isGreedy ? 1 : 0))])
        case .rollingLogLikelihood:
            guard case .rolling(let value) = responses[0] else { return [] }
            let text = try processResults?.measuredText(of: item.document) ?? item.requests[0].context
            let bytes = Double(text.utf8.count)
            return kept([
                ("word_perplexity", .weighted(value, Double(Self.wordCount(text)))),
                ("byte_perplexity", .weighted(value, bytes)), ("bits_per_byte", .weighted(value, bytes)),
            ])
        case .multipleChoice: return kept(choiceMetrics(item, responses))
        case .generation where programLanguage != nil: return passRates(responses)
        case .generation:
            return try metrics.filter { $0.name == "exact_match" }.map { metric in
                (
                    name: metric.name,
                    value: .number(try Self.exactMatch(item, filtered[0], hasManyTargets, metric.match))
                )
            }
        }
    }

    /// Parts between white space, as `re.split(r"\s+", text)` counts them.
    private static func wordCount(_ text: String) -> Int {
        var count = 1
        var wasSpace = false
        for scalar in text.unicodeScalars {
            let isSpace = PythonText.isSpace(scalar)
            if isSpace, !wasSpace { count += 1 }
            wasSpace = isSpace
        }
        return count
    }

    // MARK: Choices

    private func choiceMetrics(_ item: TaskItem, _ responses: [TaskResponse]) -> [(String, MetricValue)] {
        let values = responses.map {
            if case .logLikelihood(let value, _) = $0 { value } else { -Double.infinity }
        }
        let greedy = responses.map { if case .logLikelihood(_, let flag) = $0 { flag } else { false } }
        let count = item.choices.count
        let sums = Array(values.prefix(count))
        let characters = zip(sums, item.choices).map { $0 / Double(PythonText.count($1)) }
        let bytes = zip(sums, item.choices).map { $0 / Double($1.utf8.count) }
        let best = Self.largest(sums)
        func hit(_ choice: Int) -> MetricValue { .number(item.gold.contains(choice) ? 1 : 0) }
        let gold = item.gold.first ?? -1
        var result: [(String, MetricValue)] = [
            ("acc", hit(best)), ("f1", .labels(gold, best)), ("mcc", .labels(gold, best)),
            ("acc_norm", hit(Self.largest(characters))), ("acc_bytes", hit(Self.largest(bytes))),
            ("exact_match", .number(item.gold.contains { greedy[$0] } ? 1 : 0)),
            ("brier_score", .probabilities(gold, Self.softmax(sums))),
        ]
        if values.count == 2 * count {
            let differences = zip(sums, values.dropFirst(count)).map { $0 - $1 }
            result.append(("acc_mutual_info", hit(Self.largest(differences))))
        }
        return result
    }

    /// The first of the largest values, as numpy finds it: a value that is no number counts as the largest.
    private static func largest(_ values: [Double]) -> Int {
        if let place = values.firstIndex(where: \.isNaN) { return place }
        var best = 0
        for (index, value) in values.enumerated() where value > values[best] { best = index }
        return best
    }

    private static func softmax(_ values: [Double]) -> [Double] {
        let largest = values.max() ?? 0
        let exponentials = values.map { exp($0 - largest) }
        let sum = exponentials.reduce(0, +)
        return exponentials.map { $0 / sum }
    }

    // MARK: Programs

    /// pass@k of each k for which there are enough samples.
    private func passRates(_ responses: [TaskResponse]) -> [(name: String, value: MetricValue)] {
        guard case .programs(let programs)? = responses.first else { return [] }
        let passed = programs.count { $0.status == .passed }
        return metrics.compactMap { metric in
            guard let k = PassRate.k(of: metric.name), k <= programs.count else { return nil }
            return (metric.name, .number(PassRate.estimate(samples: programs.count, passed: passed, k: k)))
        }
    }

    // MARK: Texts

    private static func exactMatch(
        _ item: TaskItem, _ answer: JSONValue, _ hasManyTargets: Bool, _ options: ExactMatchOptions
    ) throws -> Double {
        var expected: [String]
        if !item.choices.isEmpty, let number = item.target.intValue {
            guard item.choices.indices.contains(number) else {
                throw TaskFilter.Failure(
                    description: "an answer among the \(item.choices.count) choices, found \(number)")
            }
            expected = [item.choices[number]]
        } else if hasManyTargets {
            expected = (item.target.arrayValue ?? [item.target]).map { $0.stringValue ?? $0.serialized() }
        } else {
            expected = [item.target.stringValue ?? item.target.pythonText]
        }
        let texts = answer.arrayValue?.compactMap(\.stringValue) ?? [answer.stringValue ?? answer.pythonText]
        for text in texts {
            for target in expected where try options.matches(text, target) { return 1 }
        }
        return 0
    }
}

extension JSONValue {
    /// Python's `str(value)`.
    var pythonText: String {
        switch self {
        case .null: "None"
        case .bool(let value): value ? "True" : "False"
        case .integer(let value): String(value)
        case .string(let text): text
        default: serialized()
        }
    }
}

extension TaskResponse {
    /// The answers as records show them.
    package var values: [JSONValue] {
        switch self {
        case .logLikelihood(let value, let isGreedy):
            [.array([.string(JSONValue.number(value).serialized()), .string(isGreedy ? "True" : "False")])]
        case .rolling(let value): [.string(JSONValue.number(value).serialized())]
        case .texts(let texts): texts.map { .string($0) }
        case .programs(let programs):
            programs.map {
                [
                    "text": .string($0.text), "status": .string($0.status.rawValue),
                    "detail": .string($0.detail),
                ]
            }
        }
    }
}
