import MonetCompute
import MonetModel
import MonetText

/// Which experts fire on each token of a text.
///
///     let trace = try RoutingTrace(of: ids, model: model, tokenizer: tokenizer, backend: backend)
///     for token in trace.tokens { print(token.text, token.groups[0].experts[0].expert) }
public struct RoutingTrace: Sendable, Equatable, Codable {
    /// The units of the model.
    public let kind: UnitLayout.Kind
    public let unitsPerGroup: Int
    /// Experts per side, E, if a unit is a pair.
    public let expertsPerSide: Int?
    /// Routing heads, H.
    public let routingHeads: Int
    /// The layers of each group, the first of which owns the router.
    public let layersOfGroup: [[Int]]
    /// The tokens in order.
    public let tokens: [TracedToken]
    /// All scores of every expert that some token lists, in the order of experts: where else it fires.
    public let listed: [ListedExpert]

    /// The tokens on which an expert fires.
    public struct ListedExpert: Sendable, Equatable, Codable {
        public let expert: UnitID
        /// Positions in ascending order, and the score at each.
        public let positions: [Int]
        public let scores: [Double]
    }

    /// One token and its routing in every group.
    public struct TracedToken: Sendable, Equatable, Codable {
        public let position: Int
        public let id: Int32
        /// The piece as text; `<0xE2>` for a byte.
        public let text: String
        public let groups: [TokenRouting]
    }

    /// The routing of one token in one group.
    public struct TokenRouting: Sendable, Equatable, Codable {
        /// The largest scores, largest first.
        public let experts: [ExpertScore]
        /// The number of experts with a score above zero.
        public let activeExperts: Int
        /// The number of halves of the active experts; nil for neurons.
        public let selectedLeft: Int?
        public let selectedRight: Int?
    }

    /// An expert with its routing score Σ_h ĝ1_hi · ĝ2_hj, at most H, or a neuron with its activation.
    public struct ExpertScore: Sendable, Equatable, Codable {
        public let expert: UnitID
        /// The halves i and j of an expert; nil for a neuron.
        public let halves: UnitLayout.Halves?
        public let score: Double
    }

    /// Runs the model over `ids` and keeps the `count` strongest experts of every token and group.
    ///
    /// - `mask`: experts to remove, weaken or amplify; scores are multiplied by their strengths,
    ///   and by those of the model's own mask.
    /// - Throws: `ModelError.contextExceeded`.
    public init(
        of ids: [Int32], model: MonetLanguageModel, tokenizer: Tokenizer?, count: Int = 8,
        backend: any Backend = CPUBackend(), mask: UnitMask? = nil
    ) throws {
        let (configuration, units) = (model.configuration, model.units)
        guard ids.count <= configuration.contextLength else {
            throw ModelError.contextExceeded(tokens: ids.count, context: configuration.contextLength)
        }
        var input = ForwardInput([ids], mask: mask)
        input.keepsUnits = true
        let groups = try model.forward(input, on: backend).groups
        kind = units.kind
        unitsPerGroup = units.unitsPerGroup
        expertsPerSide = units.perSide
        routingHeads = units.heads
        layersOfGroup = units.layersOfGroup.map(Array.init)
        var readers = groups.map { (group: $0.group, scores: $0.reader()) }
        let tokens = try ids.enumerated().map { position, id in
            TracedToken(
                position: position, id: id, text: try tokenizer.map { try $0.displayText(id) } ?? "\(id)",
                groups: readers.indices.map { place in
                    var scores: [(index: Int, score: Float)] = []
                    readers[place].scores.visit(position) { scores.append(($0, $1)) }
                    return TokenRouting(
                        group: readers[place].group, scores: scores, units: units, count: count)
                })
        }
        self.tokens = tokens
        // A second reading, because an expert that a later token lists may have fired before.
        let names = Set(tokens.flatMap { $0.groups.flatMap { $0.experts.map(\.expert) } })
        var found: [UnitID: [(position: Int, score: Double)]] = [:]
        for group in groups {
            var reader = group.reader()
            for position in ids.indices {
                reader.visit(position) { index, score in
                    let id = UnitID(group: group.group, index: index)
                    if names.contains(id) { found[id, default: []].append((position, Double(score))) }
                }
            }
        }
        listed = found.sorted { ($0.key.group, $0.key.index) < ($1.key.group, $1.key.index) }.map {
            ListedExpert(expert: $0.key, positions: $0.value.map(\.position), scores: $0.value.map(\.score))
        }
    }
}

extension RoutingTrace.TokenRouting {
    /// The `count` strongest of a token's units.
    init(group: Int, scores: [(index: Int, score: Float)], units: UnitLayout, count: Int) {
        let strongest = scores.sorted { ($1.score, $0.index) < ($0.score, $1.index) }.prefix(max(0, count))
        experts = strongest.map { index, score in
            RoutingTrace.ExpertScore(
                expert: UnitID(group: group, index: index), halves: units.halves(index),
                score: Double(score))
        }
        activeExperts = scores.count
        let halves = scores.compactMap { units.halves($0.index) }
        selectedLeft = units.perSide == nil ? nil : Set(halves.map(\.left)).count
        selectedRight = units.perSide == nil ? nil : Set(halves.map(\.right)).count
    }
}
