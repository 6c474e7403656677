import Foundation
import MonetCompute

extension ReferenceBackend {
    // MARK: Routing

    public func routerStatistics(_ logits: Tensor) throws -> RouterStatistics {
        let (mean, variance) = ReferenceMath.routerStatistics(try values(logits))
        return RouterStatistics(
            mean: made(Reference(mean, shape: [mean.count])),
            variance: made(Reference(variance, shape: [mean.count])))
    }

    public func route(_ logits: Tensor, rule: RouterSelectionRule) throws -> Tensor {
        let logits = try values(logits)
        let selection = ReferenceMath.selection(
            logits, mean: try values(rule.statistics.mean).values,
            variance: try values(rule.statistics.variance).values, epsilon: Double(rule.epsilon),
            threshold: Double(rule.threshold))
        return made(ReferenceMath.route(logits, selection: selection))
    }

    public func routeGradient(
        _ probabilityGradient: Tensor, probabilities: Tensor, into logitGradient: Tensor
    )
        throws
    {
        try add(
            Self.softmaxGradient(values(probabilityGradient), values(probabilities)), into: logitGradient)
    }

    private static func softmaxGradient(_ d: Reference, _ p: Reference) -> [Double] {
        (0..<p.rows).flatMap { row -> [Double] in
            let inner = (0..<p.columns).reduce(0.0) { $0 + d[row, $1] * p[row, $1] }
            return (0..<p.columns).map { p[row, $0] * (d[row, $0] - inner) }
        }
    }

    public func routerObjective(
        logits: Tensor, probabilities: Tensor, uniformity: UniformitySource
    ) throws -> RouterObjective {
        let (z, p) = (try values(logits), try values(probabilities))
        let losses = ReferenceMath.routerObjective(logits: z, probabilities: p, uniformity: uniformity)
        let (tokens, heads, experts) = (p.shape[0], p.shape[1], p.shape[2])
        let source = uniformity == .full ? Self.full(z) : p
        var (mean, counts) = (Reference(zeros: [heads, experts]), Reference(zeros: [heads, experts]))
        for row in 0..<(tokens * heads) {
            for expert in 0..<experts {
                mean[row % heads, expert] += source.values[row * experts + expert] / Double(tokens)
                counts[row % heads, expert] += p.values[row * experts + expert] > 0 ? 1 : 0
            }
        }
        return RouterObjective(
            losses: made(Reference([losses.uniformity, losses.ambiguity], shape: [2])),
            meanProbability: made(mean), selectionCounts: made(counts), tokens: tokens)
    }

    private static func full(_ logits: Reference) -> Reference {
        ReferenceMath.route(logits, selection: [Bool](repeating: true, count: logits.values.count))
    }

    public func routerObjectiveGradient(
        _ objective: RouterObjective, logits: Tensor, probabilities: Tensor, uniformity: UniformitySource,
        uniformityWeight: Float, ambiguityWeight: Float, into probabilityGradient: Tensor,
        logitGradient: Tensor
    ) throws {
        let (z, p) = (try values(logits), try values(probabilities))
        let mean = try values(objective.meanProbability)
        let (tokens, heads, experts) = (p.shape[0], p.shape[1], p.shape[2])
        var share = Reference(zeros: p.shape)
        var largest = Reference(zeros: p.shape)
        for row in 0..<(tokens * heads) {
            var best = 0
            for expert in 0..<experts {
                let m = mean[row % heads, expert]
                if m > 1e-8 {
                    share.values[row * experts + expert] =
                        -Double(uniformityWeight) / (2 * Double(heads * experts) * m * Double(tokens))
                }
                if p.values[row * experts + expert] > p.values[row * experts + best] { best = expert }
            }
            largest.values[row * experts + best] = -Double(ambiguityWeight) / (2 * Double(heads * tokens))
        }
        try add(largest.values, into: probabilityGradient)
        if uniformity == .full {
            let p = Self.full(z)
            let flat = [tokens * heads, experts]
            try add(
                Self.softmaxGradient(share.reshaped(flat), p.reshaped(flat)), into: logitGradient)
        } else {
            try add(share.values, into: probabilityGradient)
        }
    }

    // MARK: Experts

    public func experts(
        _ x: Tensor, routing: ExpertRouting, weights: ExpertWeights<Tensor>
    ) throws -> (output: Tensor, saved: ExpertActivations) {
        let layer = try PairLayer(self, x, routing, weights)
        var output = Reference(zeros: x.shape)
        layer.forEachPair { pair, weight in
            for column in 0..<output.columns {
                output[pair.token, column] += weight * layer.output(pair, column)
            }
        }
        return (made(output), ExpertActivations(0))
    }

    public func expertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: ExpertWeights<Tensor>,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: ExpertWeights<Tensor>
    ) throws {
        let layer = try PairLayer(self, x, routing, weights)
        let d = try values(outputGradient)
        var g = try weightGradient.map { Reference(zeros: try values($0).shape) }
        var dHidden = layer.hidden.map { Reference(zeros: $0.shape) }
        var (dLeft, dRight) = (Reference(zeros: routing.left.shape), Reference(zeros: routing.right.shape))
        layer.forEachPair { pair, weight in
            var inner = 0.0
            for column in 0..<d.columns {
                let own = d[pair.token, column]
                inner += own * layer.output(pair, column)
                layer.spread(own * weight, pair, column, into: &g, &dHidden)
            }
            dLeft.values[pair.leftPlace] += pair.strength * pair.right * inner
            dRight.values[pair.rightPlace] += pair.strength * pair.left * inner
        }
        for (place, up) in weights.up.enumerated() {
            // Through the squared ReLU, whose derivative is twice the root of its value.
            let before = zip(dHidden[place].values, layer.hidden[place].values).map {
                $0 * 2 * $1.squareRoot()
            }
            try linearGradient(
                made(Reference(before, shape: dHidden[place].shape)), x: x, weight: up.weight,
                into: LinearGradient(
                    x: gradient.x, weight: weightGradient.up[place].weight,
                    bias: weightGradient.up[place].bias))
        }
        for (place, down) in weightGradient.down.enumerated() {
            guard case .columns(let targets) = down.matrices,
                case .columns(let found) = g.down[place].matrices
            else { continue }
            for (target, values) in zip(targets, found) { try add(values.values, into: target) }
            try add(g.down[place].bias.values, into: down.bias)
        }
        try add(dLeft.values, into: gradient.left)
        try add(dRight.values, into: gradient.right)
    }
}

/// An expert layer as a sum over all pairs of experts that some head selects (equations 7 and 14).
private struct PairLayer {
    /// One pair of one head of one token.
    struct Pair {
        let token: Int
        let i: Int
        let j: Int
        let left: Double
        let right: Double
        let strength: Double
        let leftPlace: Int
        let rightPlace: Int

        func half(_ side: ExpertSide) -> Int { side == .left ? i : j }
    }

    let plan: ExpertPlan
    let hidden: [Reference]
    let matrices: [[Reference]]
    let bias: [Reference]
    let units: Int
    let routing: ExpertRouting
    let probabilities: (left: Reference, right: Reference)

    init(
        _ backend: ReferenceBackend, _ x: Tensor, _ routing: ExpertRouting, _ weights: ExpertWeights<Tensor>
    ) throws {
        plan = weights.plan
        let x = try backend.values(x)
        hidden = try weights.up.map { up in
            let z = ReferenceMath.linear(x, try backend.values(up.weight), try backend.values(up.bias))
            return Reference(z.values.map { $0 > 0 ? $0 * $0 : 0 }, shape: z.shape)
        }
        let experts = routing.left.shape[2]
        let units = hidden[0].columns / experts
        matrices = try weights.down.map { down in
            switch down.matrices {
            case .columns(let list): return try list.map { try backend.values($0) }
            case .rows(let rows):
                // Back to columns, an expert's rows of all sources lie together.
                let rows = try backend.values(rows)
                let sources = rows.rows / (experts * units)
                return (0..<sources).map { source in
                    var result = Reference(zeros: [rows.columns, experts * units])
                    for column in 0..<(experts * units) {
                        let row = (column / units * sources + source) * units + column % units
                        for out in 0..<rows.columns { result[out, column] = rows[row, out] }
                    }
                    return result
                }
            }
        }
        bias = try weights.down.map { try backend.values($0.bias) }
        self.units = units
        self.routing = routing
        probabilities = (try backend.values(routing.left), try backend.values(routing.right))
    }

    func forEachPair(_ body: (Pair, _ weight: Double) -> Void) {
        let (heads, experts) = (probabilities.left.shape[1], probabilities.left.shape[2])
        for row in 0..<(probabilities.left.shape[0] * heads) {
            let strengths = routing.strengths.first { $0.rows.contains(row / heads) }
            for i in 0..<experts where probabilities.left.values[row * experts + i] != 0 {
                for j in 0..<experts where probabilities.right.values[row * experts + j] != 0 {
                    let strength = Double(strengths?[i * experts + j] ?? 1)
                    let pair = Pair(
                        token: row / heads, i: i, j: j, left: probabilities.left.values[row * experts + i],
                        right: probabilities.right.values[row * experts + j], strength: strength,
                        leftPlace: row * experts + i, rightPlace: row * experts + j)
                    body(pair, strength * pair.left * pair.right)
                }
            }
        }
    }

    /// One element of what the pair's expert gives for its token.
    func output(_ pair: Pair, _ column: Int) -> Double {
        let (place, own) = part(column)
        let projection = plan.projections[place]
        var sum = bias[place][pair.half(projection.side), own]
        for (index, source) in projection.sources.enumerated() {
            guard let side = plan.hidden.firstIndex(of: source) else { continue }
            for unit in 0..<units {
                sum +=
                    matrices[place][index][own, pair.half(projection.side) * units + unit]
                    * hidden[side][pair.token, pair.half(source) * units + unit]
            }
        }
        return sum
    }

    /// Adds what a gradient of one element means for weights and hidden units.
    func spread(
        _ d: Double, _ pair: Pair, _ column: Int, into g: inout ExpertWeights<Reference>,
        _ dHidden: inout [Reference]
    ) {
        let (place, own) = part(column)
        let projection = plan.projections[place]
        g.down[place].bias[pair.half(projection.side), own] += d
        guard case .columns(var list) = g.down[place].matrices else { return }
        // Taken out while it is written: one owner, no copy.
        g.down[place].matrices = .columns([])
        for (index, source) in projection.sources.enumerated() {
            guard let side = plan.hidden.firstIndex(of: source) else { continue }
            for unit in 0..<units {
                let to = pair.half(projection.side) * units + unit
                let from = pair.half(source) * units + unit
                list[index][own, to] += d * hidden[side][pair.token, from]
                dHidden[side][pair.token, from] += d * matrices[place][index][own, to]
            }
        }
        g.down[place].matrices = .columns(list)
    }

    private func part(_ column: Int) -> (place: Int, own: Int) {
        let width = bias[0].columns
        return (column / width, column % width)
    }
}
