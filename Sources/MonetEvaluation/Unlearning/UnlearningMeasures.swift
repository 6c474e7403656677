import Foundation
import MonetFoundation

/// A number that says something about what a model knows.
public struct UnlearningMeasure: Sendable, Equatable {
    /// Its name, unique in a list.
    public let name: String
    /// The value; NaN if it does not exist for this model.
    public let value: Double
    /// Its standard error, if it is a mean over independent items.
    public let standardError: Double?
    /// The number of items.
    public let count: Int?

    /// A number without an error.
    public init(_ name: String, _ value: Double) {
        (self.name, self.value, standardError, count) = (name, value, nil, nil)
    }

    /// A mean over items.
    public init(_ name: String, _ mean: SampleMean) {
        self.name = name
        value = mean.mean
        standardError = mean.standardError
        count = mean.count
    }

    /// A number from a file.
    init(_ name: String, value: Double, standardError: Double?, count: Int?) {
        (self.name, self.value, self.standardError, self.count) = (name, value, standardError, count)
    }

    /// The value and its error as text.
    var text: String {
        guard value.isFinite else { return "–" }
        // Probabilities of a test can be far smaller than any digit shown.
        let number =
            value != 0 && abs(value) < 5e-5 ? String(format: "%.1e", value) : String(format: "%.4f", value)
        guard let standardError, standardError.isFinite else { return number }
        return number + " ± " + String(format: "%.4f", standardError)
    }

    func json() -> JSONValue {
        [
            "value": value.isFinite ? .number(value) : .null,
            "stderr": standardError.flatMap { $0.isFinite ? .number($0) : nil } ?? .null,
            "n": count.map { .integer($0) } ?? .null,
        ]
    }
}

/// The same measures of several models, or of one model with different units removed.
public struct UnlearningReport: Sendable {
    /// What was measured of one of them.
    public struct Subject: Sendable {
        /// Its name.
        public let name: String
        /// Units removed.
        public let removed: Int
        /// The measures, in the same order for all.
        public let measures: [UnlearningMeasure]

        /// Joins them.
        public init(name: String, removed: Int, measures: [UnlearningMeasure]) {
            (self.name, self.removed, self.measures) = (name, removed, measures)
        }
    }

    /// Who was measured, the first as it is.
    public let subjects: [Subject]
    /// For each of the others, random masks of the same size whose units fire as often.
    public let draws: [String: [Subject]]

    /// Collects what was measured.
    public init(subjects: [Subject], draws: [String: [Subject]] = [:]) {
        (self.subjects, self.draws) = (subjects, draws)
    }

    /// Rows of cells: a measure in each row, a model in each column, and the mean and standard deviation over random
    /// masks beside the mask they stand for.
    public var table: [[String]] {
        var rows = [[""], ["units removed"]] + (subjects.first?.measures ?? []).map { [$0.name] }
        for subject in subjects {
            rows[0].append(subject.name)
            rows[1].append(subject.removed.grouped)
            for (place, measure) in subject.measures.enumerated() { rows[place + 2].append(measure.text) }
            guard let own = draws[subject.name], let first = own.first else { continue }
            rows[0].append("random (\(own.count) draws)")
            rows[1].append(first.removed.grouped)
            for place in subject.measures.indices {
                let mean = SampleMean(own.map { $0.measures[place].value })
                let deviation = mean.standardError * Double(own.count).squareRoot()
                rows[place + 2].append(
                    mean.mean.isFinite
                        ? String(format: "%.4f", mean.mean)
                            + (deviation.isFinite ? String(format: " ± %.4f", deviation) : "")
                        : "–")
            }
        }
        return rows
    }

    /// The table as a page.
    public func page(title: String, definitions: [String], origin: PageOrigin) -> String {
        var lines = definitions
        if !draws.isEmpty {
            lines.append(
                "Random: as many other units of each group, each of which fires about as often; the mean over the draws, ± "
                    + "the standard deviation of a draw. Other errors are standard errors over the items.")
        }
        return ReportPage.html(
            title: title, lead: [], sections: [ReportPage.table(table)], definitions: lines, origin: origin)
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        func json(_ subject: Subject) -> JSONValue {
            [
                "removed": .integer(subject.removed),
                "measures": .object(subject.measures.map { .init($0.name, $0.json()) }),
            ]
        }
        return [
            "subjects": .object(subjects.map { .init($0.name, json($0)) }),
            "random": .object(
                subjects.compactMap { subject in
                    draws[subject.name].map { .init(subject.name, .array($0.map(json))) }
                }),
        ]
    }
}
