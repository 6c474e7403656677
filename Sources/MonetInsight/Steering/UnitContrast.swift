import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// What differs between two sets of texts: how much more often each unit fires on one than on the other (the risk difference of
/// SteerMoE), and the difference of mean hidden values.
///
///     let contrast = try UnitContrast(positive: kind, negative: rude, model: model)
///     for unit in contrast.strongest(10) { print(unit.unit, unit.riskDifference) }
public struct UnitContrast: Sendable {
    /// One unit.
    public struct Unit: Sendable, Equatable {
        public let unit: UnitID
        /// Shares of the texts' tokens on which it fires.
        public let positiveRate: Double
        public let negativeRate: Double
        /// Mean scores over all tokens.
        public let positiveMean: Double
        public let negativeMean: Double
        /// Mean score where it fires, in both sets together.
        public let meanWhereFiring: Double

        /// How much more often it fires on the positive texts.
        public var riskDifference: Double { positiveRate - negativeRate }
    }

    /// Every unit that fires on any of the texts.
    public let units: [Unit]
    /// Tokens of both sets.
    public let positiveTokens: Int
    public let negativeTokens: Int
    /// Mean values of the positive texts' tokens less those of the negative ones', at each hook point.
    public let directions: [HookPoint: [Float]]

    /// Runs both sets of texts.
    ///
    /// - `firstPosition`: tokens before it are run and not counted: 1 leaves out a begin token, whose values are like no other's.
    /// - `hooks`: points at which the difference of means is taken.
    /// - `progress`: called with the tokens that are done; false stops.
    /// - Throws: `InsightError.invalidSetting` for a set without tokens, `ModelError`, `CancellationError` when stopped.
    public init(
        positive: [[Int32]], negative: [[Int32]], model: MonetLanguageModel, firstPosition: Int = 0,
        hooks: [HookPoint] = [],
        backend: any Backend = CPUBackend(), progress: (Int) -> Bool = { _ in true }
    ) throws {
        var sides: [Side] = []
        var done = 0
        for (name, texts) in [("positive", positive), ("negative", negative)] {
            guard texts.contains(where: { $0.count > firstPosition }) else {
                throw InsightError.invalidSetting(
                    name: "the \(name) texts", found: "empty", expected: "one token or more to count")
            }
            let documents = LabelledDocuments(tokens: texts, origin: "the \(name) texts")
            let reader = try ActivationReader(
                model: model, documents: documents, ActivationSelection(units: .all, hooks: hooks),
                backend: backend)
            var side = Side()
            var iterator = reader.documents(from: 0)
            while let document = try iterator.nextDocument() {
                side.add(document, from: firstPosition)
                done += document.tokens.count
                guard progress(done) else { throw CancellationError() }
            }
            sides.append(side)
        }
        let (first, second) = (sides[0], sides[1])
        (positiveTokens, negativeTokens) = (first.tokens, second.tokens)
        let (n, m) = (Double(first.tokens), Double(second.tokens))
        units = Set(first.firings.keys).union(second.firings.keys)
            .sorted { ($0.group, $0.index) < ($1.group, $1.index) }.map { unit in
                let (a, b) = (first.firings[unit] ?? (0, 0), second.firings[unit] ?? (0, 0))
                return Unit(
                    unit: unit, positiveRate: Double(a.count) / n, negativeRate: Double(b.count) / m,
                    positiveMean: a.sum / n, negativeMean: b.sum / m,
                    meanWhereFiring: (a.sum + b.sum) / Double(max(1, a.count + b.count)))
            }
        directions = Dictionary(
            uniqueKeysWithValues: Set(hooks).map { point in
                let (a, b) = (first.sums[point] ?? [], second.sums[point] ?? [])
                return (point, zip(a, b).map { Float($0 / n - $1 / m) })
            })
    }

    /// The units that fire more on the positive texts, largest risk difference first.
    public func strongest(_ count: Int, group: Int? = nil) -> [Unit] {
        units.filter { unit in unit.riskDifference > 0 && group.map { $0 == unit.unit.group } ?? true }
            .sorted { a, b in
                (b.riskDifference, a.unit.group, a.unit.index) < (
                    a.riskDifference, b.unit.group, b.unit.index
                )
            }.prefix(count).map { $0 }
    }

    /// Sums over one set of texts.
    private struct Side {
        var tokens = 0
        var firings: [UnitID: (count: Int, sum: Double)] = [:]
        var sums: [HookPoint: [Double]] = [:]

        mutating func add(_ document: DocumentActivations, from first: Int) {
            tokens += max(0, document.tokens.count - first)
            let list = document.scores
            for entry in 0..<list.count where Int(list.tokens[entry]) >= first {
                let unit = UnitID(group: Int(list.groups[entry]), index: Int(list.units[entry]))
                firings[unit, default: (0, 0)].count += 1
                firings[unit]?.sum += Double(list.scores[entry])
            }
            for (point, value) in document.values {
                let width = value.shape.reduce(1, *)
                var own = sums[point] ?? [Double](repeating: 0, count: width)
                for (place, number) in value.values.enumerated() where place >= first * width {
                    own[place % width] += Double(number)
                }
                sums[point] = own
            }
        }
    }
}
