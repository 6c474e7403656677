import MonetCompute
import MonetModel
import MonetText

/// Which experts fire on each token of a text.
///
///     let trace = try RoutingTrace(of: ids, model: model, tokenizer: tokenizer, backend: backend)
///     for token in trace.tokens { print(token.text, token.groups[0].experts[0].expert) }
public struct RoutingTrace: Sendable, Equatable, Codable {
    /// Experts on a side, E; a group has E².
    public let expertsPerSide: Int
    /// Routing heads, H.
    public let routingHeads: Int
    /// The layers of each group, the first of which owns the router.
    public let layersOfGroup: [[Int]]
    /// The tokens in order.
    public let tokens: [TracedToken]

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
        /// Experts with a score above zero.
        public let activeExperts: Int
        /// Halves that any head selected.
        public let selectedLeft: Int
        public let selectedRight: Int
    }

    /// An expert with its routing score Σ_h ĝ1_hi · ĝ2_hj, at most H.
    public struct ExpertScore: Sendable, Equatable, Codable {
        public let expert: ExpertID
        /// The halves i and j.
        public let left: Int
        public let right: Int
        public let score: Double
    }

    /// Runs the model over `ids` and keeps the `count` strongest experts of every token and group.
    ///
    /// - Parameter mask: experts to remove, weaken or amplify; scores are multiplied by their strengths.
    /// - Throws: `InsightError.noExperts`, `ModelError.contextExceeded`.
    public init(
        of ids: [Int32], model: MonetLanguageModel, tokenizer: Tokenizer?, count: Int = 8,
        backend: any Backend, mask: ExpertMask? = nil
    ) throws {
        let configuration = model.configuration
        guard configuration.feedForward != .dense else { throw InsightError.noExperts }
        guard ids.count <= configuration.contextLength else {
            throw ModelError.contextExceeded(tokens: ids.count, context: configuration.contextLength)
        }
        let context = ForwardContext(inferenceOn: backend)
        context.mask = mask
        let output = try model.forward([ids], context)
        expertsPerSide = configuration.expertsPerSide
        routingHeads = configuration.routingHeads
        layersOfGroup = configuration.routerLayers.map { first in
            Array(first..<min(configuration.layerCount, first + configuration.layersPerRouter))
        }
        let sides = output.routings.map { ($0.routing.left.value.floats(), $0.routing.right.value.floats()) }
        let width = routingHeads * expertsPerSide
        let (heads, experts) = (routingHeads, expertsPerSide)
        tokens = try ids.enumerated().map { position, id in
            let row = (position * width)..<((position + 1) * width)
            return TracedToken(
                position: position, id: id, text: try tokenizer.map { try $0.displayText(id) } ?? "\(id)",
                groups: sides.enumerated().map { group, side in
                    TokenRouting(
                        group: group, left: side.0[row], right: side.1[row], heads: heads, experts: experts,
                        count: count, mask: mask)
                })
        }
    }
}

extension RoutingTrace.TokenRouting {
    /// Scores from the probabilities `[heads, experts]` of both sides.
    init(
        group: Int, left: ArraySlice<Float>, right: ArraySlice<Float>, heads: Int, experts: Int, count: Int,
        mask: ExpertMask?
    ) {
        var scores: [Int: Double] = [:]
        var (lefts, rights): (Set<Int>, Set<Int>) = ([], [])
        for head in 0..<heads {
            func selected(_ side: ArraySlice<Float>) -> [(Int, Double)] {
                (0..<experts).compactMap { expert in
                    let value = side[side.startIndex + head * experts + expert]
                    return value > 0 ? (expert, Double(value)) : nil
                }
            }
            let (leftSelected, rightSelected) = (selected(left), selected(right))
            lefts.formUnion(leftSelected.map(\.0))
            rights.formUnion(rightSelected.map(\.0))
            for (i, leftValue) in leftSelected {
                for (j, rightValue) in rightSelected {
                    scores[i * experts + j, default: 0] += leftValue * rightValue
                }
            }
        }
        if let mask {
            for (index, score) in scores {
                let strength = mask.strength(of: index, group: group)
                scores[index] = strength == 0 ? nil : score * Double(strength)
            }
        }
        let strongest = scores.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(max(0, count))
        self.experts = strongest.map { index, score in
            RoutingTrace.ExpertScore(
                expert: ExpertID(group: group, index: index), left: index / experts, right: index % experts,
                score: score)
        }
        activeExperts = scores.count
        selectedLeft = lefts.count
        selectedRight = rights.count
    }
}
