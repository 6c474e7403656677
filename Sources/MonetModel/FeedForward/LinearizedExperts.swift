import MonetCompute

/// Experts linearized at their inputs: the plan's terms for single pairs, from products of each half alone.
struct LinearizedExperts: LinearizedFeedForward {
    private let weights: ExpertWeights<Tensor>
    private let backend: any Backend
    /// The matrices of every projection, `[part, E · units]` for each source.
    private let matrices: [[Tensor]]
    /// For every projection and source, the index of the source among the hidden sides.
    private let sources: [[Int]]
    /// U h + b of each hidden side, `[tokens, E · units]`.
    private let preactivations: [[Float]]
    /// The pairs that have a term at each token, with their scores.
    private let pairs: [[(unit: Int, score: Float)]]
    private let experts: Int
    /// Hidden units of a half.
    private let units: Int
    /// Columns of the output that one projection writes.
    private let part: Int

    init(_ point: FeedForwardPoint, _ weights: ExpertWeights<Tensor>, on backend: any Backend) throws {
        let plan = weights.plan
        guard let up = weights.up.first, let bias = weights.down.first?.bias, bias.rowCount > 0,
            weights.up.count == plan.hidden.count, weights.down.count == plan.projections.count
        else { throw ModelError.invalidInput(reason: "weights that do not fit the equations of the layer") }
        self.weights = weights
        self.backend = backend
        experts = bias.rowCount
        units = up.weight.rowCount / experts
        part = bias.columnCount
        sources = try plan.projections.map { projection in
            try projection.sources.map { source in
                guard let place = plan.hidden.firstIndex(of: source) else {
                    throw ModelError.invalidInput(reason: "a projection from a side without hidden units")
                }
                return place
            }
        }
        matrices = try weights.down.map { down in
            guard case .columns(let matrices) = down.matrices else {
                throw ModelError.invalidInput(
                    reason: "effects of experts need the checkpoint's layout, not packed weights")
            }
            return matrices
        }
        preactivations = try weights.up.map {
            try backend.linear(point.input, weight: $0.weight, bias: $0.bias).floats()
        }
        var reader = point.units.reader()
        pairs = (0..<point.input.rowCount).map { token in
            var pairs: [(unit: Int, score: Float)] = []
            reader.visit(token) { pairs.append(($0, $1)) }
            return pairs
        }
    }

    private func half(_ side: ExpertSide, of pair: Int) -> Int {
        side == .left ? pair / experts : pair % experts
    }

    /// A gradient at the output, carried through the down-matrices.
    private struct Back {
        /// For every projection and source, `[tokens, E · units]`.
        var units: [[[Float]]] = []
        /// For every projection, the product with the output biases, `[tokens, E]`.
        var biases: [[Float]] = []
    }

    private func back(_ gradient: Tensor) throws -> Back {
        let (tokens, parts) = (gradient.rowCount, weights.down.count)
        let values = gradient.floats()
        var result = Back()
        for (place, down) in weights.down.enumerated() {
            let columns = (0..<tokens).flatMap { token in
                values[((token * parts + place) * part)...].prefix(part)
            }
            let dy = try backend.tensor(Tensor(Array(columns), shape: [tokens, part]))
            result.units.append(
                try matrices[place].map { matrix in try backend.transposedProduct(dy, weight: matrix).floats()
                })
            result.biases.append(try backend.linear(dy, weight: down.bias, bias: nil).floats())
        }
        return result
    }

    private func activation(_ side: Int, _ place: Int) -> Float {
        let value = max(0, preactivations[side][place])
        return value * value
    }

    func contributions(
        of gradient: Tensor, _ visit: (_ token: Int, _ unit: Int, _ contribution: Double) -> Void
    ) throws {
        let back = try back(gradient)
        let projections = weights.plan.projections
        for (token, pairs) in pairs.enumerated() {
            let start = token * experts
            for (pair, score) in pairs {
                var sum = 0.0
                for (place, projection) in projections.enumerated() {
                    let row = start + half(projection.side, of: pair)
                    sum += Double(back.biases[place][row])
                    for (index, source) in projection.sources.enumerated() {
                        let from = (start + half(source, of: pair)) * units
                        for unit in 0..<units {
                            sum +=
                                Double(activation(sources[place][index], from + unit))
                                * Double(back.units[place][index][row * units + unit])
                        }
                    }
                }
                visit(token, pair, Double(score) * sum)
            }
        }
    }

    func outputs(_ terms: [UnitTerm]) throws -> [Float] {
        try outputs(terms) { term, side in
            let from =
                (terms[term].token * experts + half(weights.plan.hidden[side], of: terms[term].unit)) * units
            return (0..<units).map { activation(side, from + $0) }
        }
    }

    func outputs(_ terms: [UnitTerm], forInputs inputs: [Float]) throws -> [Float] {
        let width = part * weights.down.count
        let hidden = weights.up.enumerated().map { side, up -> [[Float]] in
            let (matrix, bias) = (up.weight.floats(), up.bias.floats())
            return terms.enumerated().map { term, values in
                let first = half(weights.plan.hidden[side], of: values.unit) * units
                return (first..<(first + units)).map { row in
                    let sum = (0..<width).reduce(bias[row]) {
                        $0 + matrix[row * width + $1] * inputs[term * width + $1]
                    }
                    return max(0, sum) * max(0, sum)
                }
            }
        }
        return try outputs(terms) { term, side in hidden[side][term] }
    }

    /// - `activations`: of a term's half on a hidden side.
    private func outputs(_ terms: [UnitTerm], _ activations: (_ term: Int, _ side: Int) -> [Float]) throws
        -> [Float]
    {
        let width = part * weights.down.count
        var result = [Float](repeating: 0, count: terms.count * width)
        for (place, projection) in weights.plan.projections.enumerated() {
            let biases = weights.down[place].bias.floats()
            for (term, values) in terms.enumerated() {
                let row = half(projection.side, of: values.unit)
                let score = weight(of: values)
                for column in 0..<part {
                    result[term * width + place * part + column] += score * biases[row * part + column]
                }
            }
            for index in projection.sources.indices {
                let matrix = matrices[place][index].floats()
                for (term, values) in terms.enumerated() {
                    let row = half(projection.side, of: values.unit) * units
                    let score = weight(of: values)
                    let hidden = activations(term, sources[place][index]).map { score * $0 }
                    for column in 0..<part {
                        var sum: Float = 0
                        let start = column * experts * units + row
                        for unit in 0..<units { sum += matrix[start + unit] * hidden[unit] }
                        result[term * width + place * part + column] += sum
                    }
                }
            }
        }
        return result
    }

    func score(_ term: UnitTerm) -> Double { Double(weight(of: term)) }

    private func weight(of term: UnitTerm) -> Float {
        pairs[term.token].first { $0.unit == term.unit }?.score ?? 0
    }

    func inputGradient(of gradient: Tensor) throws -> (gradient: Tensor, biases: [Double]) {
        let back = try back(gradient)
        var biases = [Double](repeating: 0, count: pairs.count)
        var hidden = preactivations.map { [Float](repeating: 0, count: $0.count) }
        for (token, pairs) in pairs.enumerated() {
            let start = token * experts
            for (pair, score) in pairs {
                for (place, projection) in weights.plan.projections.enumerated() {
                    let row = start + half(projection.side, of: pair)
                    biases[token] += Double(score) * Double(back.biases[place][row])
                    for (index, source) in projection.sources.enumerated() {
                        let from = (start + half(source, of: pair)) * units
                        for unit in 0..<units {
                            hidden[sources[place][index]][from + unit] +=
                                score * back.units[place][index][row * units + unit]
                        }
                    }
                }
            }
        }
        var result: Tensor?
        for (side, up) in weights.up.enumerated() {
            let bias = up.bias.floats()
            for place in hidden[side].indices {
                // The gate, held: max(0, z).
                hidden[side][place] *= max(0, preactivations[side][place])
            }
            for token in pairs.indices {
                let start = token * bias.count
                biases[token] += bias.indices.reduce(0.0) {
                    $0 + Double(hidden[side][start + $1]) * Double(bias[$1])
                }
            }
            let own = try backend.transposedProduct(
                backend.tensor(Tensor(hidden[side], shape: [pairs.count, bias.count])), weight: up.weight)
            result = try result.map { try backend.add($0, own) } ?? own
        }
        guard let result else { throw ModelError.invalidInput(reason: "experts without hidden units") }
        return (result, biases)
    }

    func inputGradients(_ terms: [UnitTerm], of gradients: [Float]) throws -> (
        gradients: [Float], biases: [Double]
    ) {
        let width = part * weights.down.count
        var biases = [Double](repeating: 0, count: terms.count)
        // Gradient at each hidden unit of a term's half, for each hidden side.
        var hidden = weights.up.map { _ in [Float](repeating: 0, count: terms.count * units) }
        for (place, projection) in weights.plan.projections.enumerated() {
            let bias = weights.down[place].bias.floats()
            for (term, values) in terms.enumerated() {
                let row = half(projection.side, of: values.unit)
                let score = score(values)
                for column in 0..<part {
                    biases[term] +=
                        score * Double(gradients[term * width + place * part + column])
                        * Double(bias[row * part + column])
                }
            }
            for index in projection.sources.indices {
                let matrix = matrices[place][index].floats()
                let side = sources[place][index]
                for (term, values) in terms.enumerated() {
                    let row = half(projection.side, of: values.unit) * units
                    let score = weight(of: values)
                    for column in 0..<part {
                        let factor = score * gradients[term * width + place * part + column]
                        let start = column * experts * units + row
                        for unit in 0..<units {
                            hidden[side][term * units + unit] += factor * matrix[start + unit]
                        }
                    }
                }
            }
        }
        var result = [Float](repeating: 0, count: terms.count * width)
        for (side, up) in weights.up.enumerated() {
            let (matrix, bias) = (up.weight.floats(), up.bias.floats())
            for (term, values) in terms.enumerated() {
                let row = half(weights.plan.hidden[side], of: values.unit) * units
                for unit in 0..<units {
                    let preactivation = preactivations[side][values.token * experts * units + row + unit]
                    let gated = hidden[side][term * units + unit] * max(0, preactivation)
                    biases[term] += Double(gated) * Double(bias[row + unit])
                    if gated == 0 { continue }
                    let start = (row + unit) * width
                    for column in 0..<width {
                        result[term * width + column] += gated * matrix[start + column]
                    }
                }
            }
        }
        return (result, biases)
    }
}
