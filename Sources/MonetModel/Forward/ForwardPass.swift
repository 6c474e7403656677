import MonetCompute

/// One forward pass while it runs: the tape for its operations, what layers look up, and what they produce.
public final class ForwardPass {
    /// Where operations run and are recorded.
    public let tape: GradientTape
    /// The input of the pass.
    public let input: ForwardInput
    private let variables: ParameterVariables?
    private let ownMask: UnitMask?
    /// Rows of each sequence, with the masks that apply to it.
    private let masks: [(rows: Range<Int>, masks: [UnitMask])]
    /// Rows of each steered sequence, with the position of the first.
    private let steerings: [(rows: Range<Int>, position: Int, steering: Steering)]
    /// Rows of each sequence whose gradients go through some experts alone, with the halves of these.
    let reserved: [(rows: Range<Int>, halves: Range<Int>)]
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
        ownMask = own
        let points = input.sequences.reduce(into: input.hooks.points) { points, sequence in
            points.formUnion(sequence.steering?.points ?? [])
        }
        hookPoints = points.isEmpty ? nil : points
        var first = 0
        var masks: [(rows: Range<Int>, masks: [UnitMask])] = []
        var steerings: [(rows: Range<Int>, position: Int, steering: Steering)] = []
        var reserved: [(rows: Range<Int>, halves: Range<Int>)] = []
        for sequence in input.sequences {
            let rows = first..<(first + sequence.count)
            let own = [own, sequence.mask].compactMap { $0 }.filter { $0.count > 0 }
            if !own.isEmpty { masks.append((rows, own)) }
            if let steering = sequence.steering, !steering.isEmpty {
                steerings.append((rows, sequence.cache?.count ?? 0, steering))
            }
            if let block = sequence.reserved { reserved.append((rows, block.halves)) }
            first = rows.upperBound
        }
        self.masks = masks
        self.steerings = steerings
        self.reserved = reserved
    }

    /// Makes passes over the same input with tapes of their own, for layers that run twice. What makes them does not
    /// hold this pass, whose tape holds it.
    var nested: () -> ForwardPass {
        { [input, ownMask, variables, backend = tape.backend, onLastUse = tape.onLastUse] in
            let tape = GradientTape(backend: backend, isRecording: true)
            tape.onLastUse = onLastUse
            return ForwardPass(input, own: ownMask, tape: tape, variables: variables)
        }
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

    /// Rows whose values at a hook point steering replaces.
    func replacedRows(_ kind: HookPoint.Kind, _ layer: Int) -> Set<Int> {
        let point = HookPoint(kind, layer: layer)
        return steerings.reduce(into: []) { result, entry in
            for replacement in entry.steering.replacements where replacement.point == point {
                result.formUnion(
                    entry.rows.filter {
                        replacement.positions.contains(entry.position + $0 - entry.rows.lowerBound)
                    })
            }
        }
    }

    /// A value with the replacements that steering has for it. No gradient flows back from what is replaced.
    private func replaced(_ value: Variable, at point: HookPoint) throws -> Variable {
        let shape = value.value.shape
        let width = value.value.count / shape[0]
        let heads = shape.count == 3 ? shape[1] : 1
        var places: [Range<Int>] = []
        var values: [Float] = []
        for (rows, position, steering) in steerings {
            for replacement in steering.replacements where replacement.point == point {
                if values.isEmpty { values = value.value.floats() }
                let columns =
                    replacement.head.map { ($0 * width / heads)..<(($0 + 1) * width / heads) } ?? 0..<width
                for row in rows {
                    let place = position + row - rows.lowerBound
                    guard replacement.positions.contains(place),
                        let new = try replacement.values(at: place, width: width, heads: heads)
                    else { continue }
                    for column in columns { values[row * width + column] = new?[column] ?? 0 }
                    places.append((row * width + columns.lowerBound)..<(row * width + columns.upperBound))
                }
            }
        }
        if places.isEmpty { return value }
        let backend = tape.backend
        let result = try backend.tensor(Tensor(values, shape: shape).converted(to: value.value.dtype))
        return tape.record(result, from: [value]) { gradient in
            var kept = gradient.floats()
            for place in places { for index in place { kept[index] = 0 } }
            try value.add(backend.tensor(Tensor(kept, shape: shape)), on: backend)
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
        value = try steered(replaced(value, at: point), at: point)
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

extension Steering.Replacement {
    /// What stands in at a position: nil keeps the value, and an inner nil means zeros.
    ///
    /// - Throws: `ModelError.invalidInput` for a row of another width.
    fileprivate func values(at position: Int, width: Int, heads: Int) throws -> [Float]?? {
        let row: [Float]
        switch content {
        case .zero: return .some(nil)
        case .row(let own): row = own
        case .rows(let rows):
            guard rows.indices.contains(position) else { return nil }
            row = rows[position]
        }
        if row.count == width { return row }
        // Patterns of a shorter pass have fewer keys; later ones get no attention, nor do a longer pass's in this one.
        guard point.kind == .pattern else {
            throw ModelError.invalidInput(
                reason: "steering: \(row.count) numbers for \(point), expected \(width)")
        }
        let (own, target) = (row.count / heads, width / heads)
        return (0..<heads).flatMap { head in
            (0..<target).map { $0 < own ? row[head * own + $0] : 0 }
        }
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
        parameters[ObjectIdentifier(variable)] = parameter
        return variable
    }

    /// Called in a backward pass with each parameter to whose gradient nothing more is added in that pass. Parameters
    /// that the output head alone uses are not reported: their gradient is complete before.
    public var onGradient: ((Parameter) throws -> Void)?

    private var parameters: [ObjectIdentifier: Parameter] = [:]

    /// Reports a variable whose gradient is complete, if it is a parameter's.
    func complete(_ variable: Variable) throws {
        if let onGradient, let parameter = parameters[ObjectIdentifier(variable)] {
            try onGradient(parameter)
        }
    }

    /// The gradient accumulated for a parameter; nil if none reached it.
    public func gradient(of parameter: Parameter) -> Tensor? { byName[parameter.name]?.gradient }

    /// Takes all gradients out: the next pass begins with none.
    ///
    /// - Returns: in the order of the parameters, nil for those that none reached.
    public func takeGradients(of parameters: [Parameter]) -> [Tensor?] {
        parameters.map { parameter in
            let variable = byName[parameter.name]
            defer { variable?.removeGradient() }
            return variable?.gradient
        }
    }
}
