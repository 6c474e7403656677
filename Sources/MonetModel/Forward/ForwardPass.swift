import MonetCompute

/// One forward pass while it runs: the tape for its operations, what layers look up, and what they produce.
public final class ForwardPass {
    /// Where operations run and are recorded.
    public let tape: GradientTape
    /// The input of the pass.
    public let input: ForwardInput
    private let variables: ParameterVariables?
    /// Rows of each sequence, with the masks that apply to it.
    private let masks: [(rows: Range<Int>, masks: [UnitMask])]
    /// Rows of each steered sequence, with the position of the first.
    private let steerings: [(rows: Range<Int>, position: Int, steering: Steering)]
    /// Hook points in use; nil if there are none, so that such a pass needs no lookups.
    private let hookPoints: Set<HookPoint>?
    /// Values at observed hook points.
    private(set) var observations: [HookPoint: Variable] = [:]
    /// Batch statistics of routers, if they normalize.
    var routerStatistics: [RouterBatchStatistics] = []

    init(
        _ input: ForwardInput, own: UnitMask?, tape: GradientTape, variables: ParameterVariables? = nil
    ) {
        self.input = input
        self.tape = tape
        self.variables = variables
        let points = input.sequences.reduce(into: input.hooks.points) { points, sequence in
            for direction in sequence.steering?.directions ?? [] { points.insert(direction.point) }
        }
        hookPoints = points.isEmpty ? nil : points
        var first = 0
        var masks: [(rows: Range<Int>, masks: [UnitMask])] = []
        var steerings: [(rows: Range<Int>, position: Int, steering: Steering)] = []
        for sequence in input.sequences {
            let rows = first..<(first + sequence.count)
            let own = [own, sequence.mask].compactMap { $0 }.filter { $0.count > 0 }
            if !own.isEmpty { masks.append((rows, own)) }
            if let steering = sequence.steering, !steering.isEmpty {
                steerings.append((rows, sequence.cache?.count ?? 0, steering))
            }
            first = rows.upperBound
        }
        self.masks = masks
        self.steerings = steerings
    }

    /// The variable of a parameter.
    public func callAsFunction(_ parameter: Parameter) -> Variable {
        variables?.variable(of: parameter) ?? Variable(parameter.tensor)
    }

    /// The strengths in a group of units. For each sequence, the model's own strengths and the sequence's are
    /// multiplied, so that no caller can undo an edit.
    public func strengths(group: Int) -> [RowStrengths] {
        masks.compactMap { rows, masks in
            let factors = masks.compactMap { $0.strengths(group: group) }
            return factors.isEmpty ? nil : RowStrengths(rows: rows, factors: factors)
        }
    }

    /// The forced units of a group, by row.
    public func forcedUnits(group: Int) -> [(row: Int, unit: Int, score: Float)] {
        steerings.flatMap { rows, position, steering in
            let units = steering.units.filter { $0.group == group }
            return units.isEmpty
                ? []
                : rows.flatMap { row in
                    units.filter { $0.positions.contains(position + row - rows.lowerBound) }
                        .map { (row, $0.index, $0.score) }
                }
        }
    }

    /// A value with the directions added that steer it.
    private func steered(_ value: Variable, at point: HookPoint) throws -> Variable {
        var additions: [Float] = []
        let width = value.value.count / value.value.shape[0]
        for (rows, position, steering) in steerings {
            for direction in steering.directions where direction.point == point {
                guard direction.vector.count == width else {
                    throw ModelError.invalidInput(
                        reason:
                            "steering: a vector of \(direction.vector.count) numbers for \(point), expected \(width)"
                    )
                }
                if additions.isEmpty { additions = [Float](repeating: 0, count: value.value.count) }
                for row in rows where direction.positions.contains(position + row - rows.lowerBound) {
                    for column in 0..<width {
                        additions[row * width + column] += direction.scale * direction.vector[column]
                    }
                }
            }
        }
        if additions.isEmpty { return value }
        let added = try tape.backend.tensor(Tensor(additions, shape: value.value.shape))
        return try tape.add(value, Variable(added))
    }

    /// Whether anything observes or replaces the value at a hook point.
    func isHooked(_ kind: HookPoint.Kind, _ layer: Int) -> Bool {
        hookPoints.map { $0.contains(HookPoint(kind, layer: layer)) } ?? false
    }

    /// Whether the value at a hook point may be replaced or needs its gradient, rather than only observed.
    func changes(_ kind: HookPoint.Kind, _ layer: Int) -> Bool {
        isHooked(kind, layer)
            && (tape.isRecording || input.hooks.writes[HookPoint(kind, layer: layer)] != nil)
    }

    /// The value at a hook point after all replacements, which is stored if it is observed.
    ///
    /// - Throws: `ModelError.invalidInput` for a replacement of another shape.
    public func hook(_ kind: HookPoint.Kind, _ layer: Int, _ value: Variable) throws -> Variable {
        guard let hookPoints else { return value }
        let point = HookPoint(kind, layer: layer)
        guard hookPoints.contains(point) else { return value }
        var value = value
        for write in input.hooks.writes[point] ?? [] {
            let new = try write(value, tape)
            guard new.value.shape == value.value.shape, new.value.dtype == value.value.dtype else {
                throw ModelError.invalidInput(
                    reason:
                        "\(point): a replacement of \(new.value.shape), expected \(value.value.shape)")
            }
            value = new
        }
        value = try steered(value, at: point)
        if input.hooks.observed.contains(point) {
            value.retainsGradient = true
            observations[point] = value
        }
        return value
    }

    /// The same for rows of `heads` values side by side, seen as `[tokens, heads, width]`.
    func hook(_ kind: HookPoint.Kind, _ layer: Int, _ value: Variable, heads: Int) throws -> Variable {
        guard isHooked(kind, layer) else { return value }
        let (rows, columns) = (value.value.rowCount, value.value.columnCount)
        let split = tape.reshape(value, [rows, heads, columns / heads])
        return tape.reshape(try hook(kind, layer, split), [rows, columns])
    }
}

/// Variables of a model's parameters, which hold gradients between micro-batches.
public final class ParameterVariables {
    private var byName: [String: Variable] = [:]
    private let frozen: (String) -> Bool

    /// Variables for all parameters; those that `frozen` names get no gradient.
    public init(frozen: @escaping (String) -> Bool = { _ in false }) {
        self.frozen = frozen
    }

    func variable(of parameter: Parameter) -> Variable {
        if let known = byName[parameter.name] { return known }
        let variable = Variable(parameter.tensor, requiresGradient: !frozen(parameter.name))
        byName[parameter.name] = variable
        return variable
    }

    /// The gradient accumulated for a parameter; nil if none reached it.
    public func gradient(of parameter: Parameter) -> Tensor? { byName[parameter.name]?.gradient }
}
