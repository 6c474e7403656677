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
        hookPoints = input.hooks.isEmpty ? nil : input.hooks.points
        var first = 0
        var masks: [(rows: Range<Int>, masks: [UnitMask])] = []
        for sequence in input.sequences {
            let rows = first..<(first + sequence.count)
            let own = [own, sequence.mask].compactMap { $0 }.filter { $0.count > 0 }
            if !own.isEmpty { masks.append((rows, own)) }
            first = rows.upperBound
        }
        self.masks = masks
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
