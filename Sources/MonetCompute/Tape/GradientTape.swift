/// Runs operations on a backend and, when recording, remembers how to run them backwards.
///
///     let tape = GradientTape(backend: backend, isRecording: true)
///     let y = try tape.linear(x, weight: w, bias: nil)
///     try tape.backward()
///
/// Without recording it is a thin veil over the backend: layers are written once.
public final class GradientTape {
    /// Where operations run.
    public let backend: any Backend
    /// Whether gradients will be asked for.
    public let isRecording: Bool
    private var steps: [() throws -> Void] = []
    /// How often each variable is an input of steps that are still to run.
    private var uses: [ObjectIdentifier: Int] = [:]
    /// Called on the way back with each input of an operation once no further step adds to its gradient.
    public var onLastUse: ((Variable) throws -> Void)?
    /// Bytes of the values that recorded operations gave: what a pass keeps for its gradients, without what
    /// operations keep within.
    public private(set) var recordedBytes = 0

    /// A tape over `backend`.
    public init(backend: any Backend, isRecording: Bool) {
        self.backend = backend
        self.isRecording = isRecording
    }

    /// The result of an operation that its caller computed, with what leads its gradient back: how a layer in
    /// another module adds an operation that this type does not have.
    ///
    /// - `value`: on the tape's device.
    /// - `inputs`: the variables that the value depends on; if none needs a gradient, nothing is recorded.
    /// - `step`: receives ∂L/∂value on the way back and adds to the gradients of those inputs that need one.
    public func record(
        _ value: Tensor, from inputs: [Variable?], _ step: @escaping (_ gradient: Tensor) throws -> Void
    ) -> Variable {
        let needs = isRecording && inputs.contains { $0?.requiresGradient ?? false }
        let result = Variable(value, requiresGradient: needs)
        if needs {
            recordedBytes += value.byteCount
            append(from: inputs.compactMap { $0 }) {
                // Nothing downstream used it: nothing flows back.
                guard let gradient = result.gradient else { return }
                try step(gradient)
                result.dropGradient()
            }
        }
        return result
    }

    private func append(from inputs: [Variable], _ step: @escaping () throws -> Void) {
        guard onLastUse != nil else { return steps.append(step) }
        for input in inputs { uses[ObjectIdentifier(input), default: 0] += 1 }
        steps.append { [unowned self] in
            try step()
            for input in inputs {
                let left = (uses[ObjectIdentifier(input)] ?? 1) - 1
                uses[ObjectIdentifier(input)] = left
                if left == 0 { try onLastUse?(input) }
            }
        }
    }

    /// Runs every recorded operation backwards, last first, and forgets them.
    ///
    /// The losses seed their gradients themselves; gradients of trainable variables add up.
    public func backward() throws {
        while let step = steps.popLast() { try step() }
    }

    // MARK: Operations

    /// Rows of a table, `[ids, width]`.
    public func embed(_ ids: [Int32], table: Variable) throws -> Variable {
        let backend = backend
        return record(try backend.embed(ids, table: table.value), from: [table]) { gradient in
            try backend.embedGradient(gradient, ids: ids, into: try table.gradientForAdding(on: backend))
        }
    }

    /// Rows of several variables, one after the other.
    public func concatenated(_ parts: [Variable]) throws -> Variable {
        let backend = backend
        guard let first = parts.first,
            parts.allSatisfy({
                $0.value.dtype == .float32 && $0.value.shape.dropFirst() == first.value.shape.dropFirst()
            })
        else {
            throw ComputeError.shapeMismatch(
                operation: "concatenation", expected: "float32 rows of one width",
                found: "\(parts.map { "\($0.value.dtype) \($0.value.shape)" })")
        }
        let value = try backend.empty(
            [parts.reduce(0) { $0 + $1.value.shape[0] }] + first.value.shape.dropFirst(), dtype: .float32)
        var ranges: [Range<Int>] = []
        for part in parts {
            let start = ranges.last?.upperBound ?? 0
            ranges.append(start..<(start + part.value.shape[0]))
            try backend.copy(part.value, into: value.slice(ranges[ranges.count - 1]))
        }
        return record(value, from: parts) { [ranges] gradient in
            for (part, range) in zip(parts, ranges) where part.requiresGradient {
                try part.receive(shared: gradient.slice(range), backend: backend)
            }
        }
    }

    /// `x · weightᵀ + bias`.
    public func linear(_ x: Variable, weight: Variable, bias: Variable?) throws -> Variable {
        let backend = backend
        let value = try backend.linear(x.value, weight: weight.value, bias: bias?.value)
        return record(value, from: [x, weight, bias]) { gradient in
            try backend.linearGradient(
                gradient, x: x.value, weight: weight.value,
                into: LinearGradient(
                    x: x.requiresGradient ? try x.gradientForAdding(on: backend) : nil,
                    weight: weight.requiresGradient ? try weight.gradientForAdding(on: backend) : nil,
                    bias: try bias.flatMap {
                        $0.requiresGradient ? try $0.gradientForAdding(on: backend) : nil
                    }))
        }
    }

    /// `x · weightᵀ` for several weights.
    public func projections(_ x: Variable, weights: [Variable]) throws -> [Variable] {
        if isRecording { return try weights.map { try linear(x, weight: $0, bias: nil) } }
        return try backend.projections(x.value, weights: weights.map(\.value)).map { Variable($0) }
    }

    /// Root-mean-square normalization.
    public func rmsNorm(_ x: Variable, weight: Variable, epsilon: Float) throws -> Variable {
        let backend = backend
        let (value, scale) = try backend.rmsNorm(x.value, weight: weight.value, epsilon: epsilon)
        return record(value, from: [x, weight]) { gradient in
            try backend.rmsNormGradient(
                gradient, x: x.value, weight: weight.value, scale: scale,
                into: try x.gradientForAdding(on: backend),
                weightGradient: try weight.gradientForAdding(on: backend))
        }
    }

    /// `x + y`, for the residual stream.
    public func add(_ x: Variable, _ y: Variable) throws -> Variable {
        let backend = backend
        return record(try backend.add(x.value, y.value), from: [x, y]) { gradient in
            if x.requiresGradient { try x.receive(shared: gradient, backend: backend) }
            if y.requiresGradient { try y.receive(shared: gradient, backend: backend) }
        }
    }

    /// Causal attention of the three projections.
    ///
    /// - `pattern`: sees the probabilities `[tokens, heads, keys]` and may replace them; nil runs
    ///   attention without making them.
    public func attention(
        query: Variable, key: Variable, value: Variable, _ shape: AttentionShape,
        pattern change: ((Variable) throws -> Variable)? = nil
    ) throws -> Variable {
        let backend = backend
        let input = AttentionInput(query: query.value, key: key.value, value: value.value, shape: shape)
        if let change {
            let found = try backend.attentionPattern(input)
            let pattern = try change(
                record(found, from: [query, key]) { gradient in
                    try backend.attentionPatternGradient(
                        gradient, pattern: found, input: input,
                        into: query.gradientForAdding(on: backend),
                        keyGradient: key.gradientForAdding(on: backend))
                })
            let mixed = try backend.attentionMixture(pattern.value, input: input)
            return record(mixed, from: [pattern, value]) { gradient in
                try backend.attentionMixtureGradient(
                    gradient, pattern: pattern.value, input: input,
                    into: pattern.gradientForAdding(on: backend),
                    valueGradient: value.gradientForAdding(on: backend))
            }
        }
        let result = try backend.attention(input)
        return record(result.output, from: [query, key, value]) { gradient in
            try backend.attentionGradient(
                gradient, input: input, result: result, into: query.gradientForAdding(on: backend),
                keyGradient: key.gradientForAdding(on: backend),
                valueGradient: value.gradientForAdding(on: backend))
        }
    }

    /// Routing probabilities of one side from its logits `[tokens, heads, experts]`.
    public func route(
        _ logits: Variable, rule: RouterSelectionRule
    ) throws -> Variable {
        let backend = backend
        let value = try backend.route(logits.value, rule: rule)
        return record(value, from: [logits]) { gradient in
            try backend.routeGradient(
                gradient, probabilities: value, into: try logits.gradientForAdding(on: backend))
        }
    }

    /// The logits' rows seen as heads of experts; gradients pass through unchanged.
    public func reshape(_ x: Variable, _ shape: [Int]) -> Variable {
        record(x.value.reshaped(shape), from: [x]) { [backend] gradient in
            try x.receive(shared: gradient.reshaped(x.value.shape), backend: backend)
        }
    }

    /// The auxiliary losses of one router side, weighted into the objective.
    ///
    /// - `mean`: gives, when gradients are computed, the mean probabilities `[heads, experts]` of a batch that this
    ///   pass is a part of; nil if the pass is the whole batch.
    public func routerObjective(
        logits: Variable, probabilities: Variable, uniformity: UniformitySource, uniformityWeight: Float,
        ambiguityWeight: Float, mean: @escaping () -> Tensor? = { nil }
    ) throws -> RouterObjective {
        let backend = backend
        let objective = try backend.routerObjective(
            logits: logits.value, probabilities: probabilities.value, uniformity: uniformity)
        if isRecording, logits.requiresGradient {
            append(from: [logits, probabilities]) {
                try backend.routerObjectiveGradient(
                    mean().map { objective.of(meanProbability: $0) } ?? objective, logits: logits.value,
                    probabilities: probabilities.value,
                    uniformity: uniformity,
                    uniformityWeight: uniformityWeight, ambiguityWeight: ambiguityWeight,
                    into: try probabilities.gradientForAdding(on: backend),
                    logitGradient: try logits.gradientForAdding(on: backend))
            }
        }
        return objective
    }

    /// An expert layer (equations 6 to 15, by the weights' plan).
    ///
    /// - `learning`: the routing through which weights and probabilities get their gradients, if it is another one; `x`
    ///   gets its own through the whole layer.
    public func experts(
        _ x: Variable, left: Variable, right: Variable, routing: ExpertRouting,
        weights: ExpertWeights<Variable>, learning: ExpertLearning? = nil
    ) throws -> Variable {
        let backend = backend
        let values = weights.map(\.value)
        let (value, saved) = try backend.experts(x.value, routing: routing, weights: values)
        if let learning {
            return record(value, from: [x, learning.left, learning.right] + weights.all) { gradient in
                // A layer has one gradient for all that it depends on: what is not wanted goes to variables of nobody.
                try Self.expertsGradient(
                    gradient, x, Variable(left.value), Variable(right.value), routing,
                    weights.map { Variable($0.value) }, saved, backend)
                // What the pass saved belongs to the routing that it ran with.
                let own = try backend.experts(x.value, routing: learning.routing, weights: values).saved
                try Self.expertsGradient(
                    gradient, Variable(x.value), learning.left, learning.right, learning.routing, weights,
                    own,
                    backend)
            }
        }
        return record(value, from: [x, left, right] + weights.all) { gradient in
            try Self.expertsGradient(gradient, x, left, right, routing, weights, saved, backend)
        }
    }

    private static func expertsGradient(
        _ gradient: Tensor, _ x: Variable, _ left: Variable, _ right: Variable, _ routing: ExpertRouting,
        _ weights: ExpertWeights<Variable>, _ saved: ExpertActivations, _ backend: any Backend
    ) throws {
        try backend.expertsGradient(
            gradient, x: x.value, routing: routing, weights: weights.map(\.value), saved: saved,
            into: ExpertGradient(
                x: try x.gradientForAdding(on: backend), left: try left.gradientForAdding(on: backend),
                right: try right.gradientForAdding(on: backend)),
            weightGradient: try weights.map { try $0.gradientForAdding(on: backend) })
        // A layer has one gradient for all of its weights; those that stay as they are do not keep theirs.
        for weight in weights.all where !weight.requiresGradient { weight.removeGradient() }
    }

    /// Hidden units times their strengths.
    public func scaled(_ hidden: Variable, by strengths: [RowStrengths]) throws -> Variable {
        let backend = backend
        return record(try backend.scaled(hidden.value, by: strengths), from: [hidden]) { gradient in
            try hidden.receive(shared: backend.scaled(gradient, by: strengths), backend: backend)
        }
    }

    /// `silu(gate) · up`.
    public func gatedActivation(gate: Variable, up: Variable) throws -> Variable {
        let backend = backend
        return record(try backend.gatedActivation(gate: gate.value, up: up.value), from: [gate, up]) {
            gradient in
            try backend.gatedActivationGradient(
                gradient, gate: gate.value, up: up.value, into: try gate.gradientForAdding(on: backend),
                upGradient: try up.gradientForAdding(on: backend))
        }
    }

    /// Cross entropy of each token; when recording, seeds the gradient of `scale · sum`.
    public func crossEntropy(hidden: Variable, weight: Variable, targets: [Int32], scale: Float) throws
        -> Tensor
    {
        try crossEntropy(
            hidden: hidden, weight: weight, targets: targets,
            sequences: [(count: hidden.value.rowCount, scale: scale)])
    }

    /// The same, with a scale of its own for each of some sequences of rows.
    ///
    /// - `sequences`: the rows of each, one sequence after another, and its scale.
    public func crossEntropy(
        hidden: Variable, weight: Variable, targets: [Int32], sequences: [(count: Int, scale: Float)]
    ) throws -> Tensor {
        let rows = hidden.value.rowCount
        guard targets.count == rows, sequences.allSatisfy({ $0.count >= 0 }),
            sequences.reduce(0, { $0 + $1.count }) == rows
        else {
            throw ComputeError.shapeMismatch(
                operation: "cross entropy", expected: "sequences and targets of \(rows) rows",
                found: "\(sequences.map(\.count)), \(targets.count) targets")
        }
        let isRecording = isRecording && (hidden.requiresGradient || weight.requiresGradient)
        let gradient =
            isRecording && hidden.requiresGradient ? try hidden.gradientForAdding(on: backend) : nil
        let weightGradient =
            isRecording && weight.requiresGradient ? try weight.gradientForAdding(on: backend) : nil
        func losses(_ range: Range<Int>, _ scale: Float) throws -> Tensor {
            let isWhole = range.count == rows
            return try backend.crossEntropy(
                hidden: isWhole ? hidden.value : hidden.value.slice(range), weight: weight.value,
                targets: Array(targets[range]), scale: scale,
                gradient: isRecording
                    ? LinearGradient(
                        x: isWhole ? gradient : gradient?.slice(range), weight: weightGradient, bias: nil)
                    : nil)
        }
        if sequences.count == 1 { return try losses(0..<rows, sequences[0].scale) }
        let result = try backend.empty([rows], dtype: .float32)
        var first = 0
        for (count, scale) in sequences where count > 0 {
            let range = first..<(first + count)
            try backend.copy(losses(range, scale), into: result.slice(range))
            first += count
        }
        return result
    }
}
