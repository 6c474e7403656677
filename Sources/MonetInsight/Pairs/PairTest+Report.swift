import Foundation
import MonetFoundation

extension PairTest {
    /// The pairs of a group in numbers.
    public struct Summary: Sendable {
        /// Pairs.
        public let count: Int
        /// The median of observed joint firings, divided by those of independent halves.
        public let lift: Double
        /// The same against halves that are independent given the label.
        public let liftGivenLabel: Double?
        /// Means of the measures.
        public let measures: [(name: String, observed: Double, permuted: Double, significant: Double)]
    }

    /// The names of the measures, as in the table and in JSON.
    private static let measures: [(name: String, value: @Sendable (Pair) -> Measure?)] = [
        ("joint", { $0.joint }), ("joint_given_label", { $0.jointGivenLabel }), ("label", { $0.labels }),
        ("next_token", { $0.nextTokens }), ("label_given_halves", { $0.labelsGivenHalves }),
        ("next_token_given_halves", { $0.nextTokensGivenHalves }),
    ]

    /// The pairs of a group, or of all.
    ///
    /// - Returns: nil without any.
    public func summary(group: Int? = nil) -> Summary? {
        let own = pairs.filter { pair in group.map { $0 == pair.expert.group } ?? true }
        guard !own.isEmpty else { return nil }
        func median(_ values: [Double]) -> Double? {
            values.isEmpty ? nil : values.sorted()[values.count / 2]
        }
        func lift(_ measure: Measure) -> Double {
            measure.observed / max(measure.mean, 1 / Double(permutations))
        }
        // The smallest p-value that the permutations allow.
        let least = 1 / Double(1 + permutations)
        return Summary(
            count: own.count, lift: median(own.map { lift($0.joint) }) ?? 0,
            liftGivenLabel: median(own.compactMap { $0.jointGivenLabel.map(lift) }),
            measures: Self.measures.compactMap { name, value in
                let values = own.compactMap(value)
                guard !values.isEmpty else { return nil }
                let count = Double(values.count)
                return (
                    name, values.reduce(0) { $0 + $1.observed } / count,
                    values.reduce(0) { $0 + $1.mean } / count,
                    Double(values.count { $0.pValue <= least + 1e-9 }) / count
                )
            })
    }

    /// The groups that were tested.
    public var groups: [Int] { Set(pairs.map(\.expert.group)).sorted() }

    /// The test as JSON.
    public func json() -> JSONValue {
        func json(_ measure: Measure) -> JSONValue {
            [
                "observed": .number(measure.observed), "permuted_mean": .number(measure.mean),
                "permuted_max": .number(measure.largest), "p": .number(measure.pValue),
            ]
        }
        func json(_ summary: Summary) -> JSONValue {
            .object(
                [
                    .init("pairs", .integer(summary.count)), .init("median_lift", .number(summary.lift)),
                    .init("median_lift_given_label", summary.liftGivenLabel.map { .number($0) } ?? .null),
                ]
                    + summary.measures.map {
                        .init(
                            $0.name,
                            [
                                "observed": .number($0.observed), "permuted": .number($0.permuted),
                                "significant": .number($0.significant),
                            ])
                    })
        }
        return [
            "tokens": .integer(tokens), "heads": .integer(heads), "permutations": .integer(permutations),
            "labels": .array(labels.map { .string($0) }),
            "summary": summary().map(json) ?? .null,
            "groups": .object(
                groups.compactMap { group in summary(group: group).map { .init("\(group)", json($0)) } }),
            "pairs": .array(
                pairs.map { pair in
                    .object(
                        [
                            .init("expert", .string(pair.expert.description)),
                            .init("left_count", .integer(pair.leftCount)),
                            .init("right_count", .integer(pair.rightCount)),
                            .init("count", .integer(pair.count)),
                        ]
                            + Self.measures.compactMap { name, value in
                                value(pair).map { .init(name, json($0)) }
                            })
                }),
        ]
    }
}
