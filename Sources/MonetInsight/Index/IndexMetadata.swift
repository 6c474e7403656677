import GRDB
import MonetFoundation
import MonetModel

/// What an index says about its model and corpus, with every number in a range that a model can have.
struct IndexMetadata {
    let units: UnitLayout
    let tokens: Int
    let documents: Int
    let window: Int
    let vocabularySize: Int
    let modelPath: String
    let model: String
    let corpus: String

    /// 16 times the published models' numbers of experts, and more than any index has been built for.
    static let mostUnitsPerGroup = 1 << 22
    static let mostUnits = 1 << 27

    /// Reads the table `meta`.
    ///
    /// - Throws: `InsightError.malformedIndex` naming the key.
    init(_ database: Database, path: String) throws {
        var values: [String: String] = [:]
        for row in try Row.fetchAll(database, sql: "SELECT key, value FROM meta") {
            let entry = IndexRow(row, path: path)
            values[try entry.text("key")] = try entry.text("value")
        }
        func fail(_ key: String, _ expected: String) -> InsightError {
            let found = values[key].map { "'\($0.prefix(40))'" } ?? "absent"
            return .malformedIndex(path: path, reason: "\"\(key)\" is \(found), expected \(expected)")
        }
        func number(_ key: String, _ range: ClosedRange<Int>) throws -> Int {
            guard let value = values[key].flatMap({ Int($0) }), range.contains(value) else {
                throw fail(key, "a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
        func text(_ key: String) throws -> String {
            guard let value = values[key] else { throw fail(key, "text") }
            return value
        }
        let total = try number("units_per_group", 1...Self.mostUnitsPerGroup)
        let side = try number("experts_per_side", 0...Self.mostUnitsPerGroup)
        guard side == 0 || MemoryLimits.product(side, side) == total else {
            throw fail("experts_per_side", "the square root of units_per_group, \(total), or 0")
        }
        let (layers, perRouter) = (
            try number("layers", 1...1 << 12), try number("layers_per_router", 1...1 << 12)
        )
        let groups = try number("groups", 1...layers)
        guard groups * total <= Self.mostUnits else {
            throw fail("groups", "at most \(Self.mostUnits / total)")
        }
        guard (groups - 1) * perRouter < layers else {
            throw fail("layers_per_router", "one that fits \(groups) groups of \(layers) layers")
        }
        guard let kind = UnitLayout.Kind(rawValue: try text("units")) else {
            throw fail("units", "experts or neurons")
        }
        guard (kind == .experts) == (side > 0) else {
            throw fail("experts_per_side", kind == .experts ? "1 or more for experts" : "0 for neurons")
        }
        units = UnitLayout(
            kind: kind,
            layersOfGroup: (0..<groups).map {
                ($0 * perRouter)...(min(layers, ($0 + 1) * perRouter) - 1)
            },
            unitsPerGroup: total, perSide: side > 0 ? side : nil, heads: try number("routing_heads", 1...1024)
        )
        tokens = try number("tokens", 1...Int(UInt32.max))
        documents = try number("documents", 1...Int(UInt32.max))
        window = try number("window", 1...1 << 20)
        vocabularySize = try number("vocabulary", 1...1 << 24)
        modelPath = try text("model_path")
        model = try text("model")
        corpus = try text("corpus")
    }
}
