import CMonetKernels

// Expert layers on the processor: which execution runs a plan. Packed weights run in `PackedExecution`.

extension CPUBackend {
    public func experts(
        _ x: Tensor, routing: ExpertRouting, weights: ExpertWeights<Tensor>
    ) throws -> (output: Tensor, saved: ExpertActivations) {
        let shape = try ExpertShape(x, routing, weights, self)
        if weights.down.contains(where: \.isPacked) {
            let output = try experts(x, routing: routing, prepared: prepare(weights))
            return (output, ExpertActivations(SavedExperts.packed))
        }
        if isGathered(routing) {
            let (output, saved) = try gatheredExperts(x, selection(routing), weights: weights, shape)
            return (output, ExpertActivations(SavedExperts.gathered(saved)))
        }
        return (
            try denseExperts(x, routing, weights: weights, shape), ExpertActivations(SavedExperts.dense)
        )
    }

    public func expertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: ExpertWeights<Tensor>,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: ExpertWeights<Tensor>
    ) throws {
        let shape = try ExpertShape(x, routing, weights, self)
        try requireFloat32([outputGradient, gradient.x], x.shape, "experts' gradient")
        try requireFloat32([gradient.left, gradient.right], routing.left.shape, "experts' gradient")
        guard let saved = saved.content as? SavedExperts, weightGradient.plan == weights.plan,
            weightGradient.all.count == weights.all.count
        else { throw ComputeError.foreignPreparation(operation: "experts' gradient", device: name) }
        for (target, weight) in zip(weightGradient.all, weights.all) {
            try requireFloat32([target], weight.shape, "experts' gradient")
        }
        switch saved {
        case .gathered(let saved):
            try gatheredGradient(
                outputGradient, x: x, weights: weights, saved: saved, into: gradient,
                weightGradient: weightGradient)
        case .packed:
            throw ComputeError.unsupported(operation: "the gradient of packed experts", device: name)
        case .dense:
            // There is one gradient, that of the selected experts: the others have none.
            let (_, saved) = try gatheredExperts(x, selection(routing), weights: weights, shape)
            try gatheredGradient(
                outputGradient, x: x, weights: weights, saved: saved, into: gradient,
                weightGradient: weightGradient)
        }
    }

    /// Both sides' selections of a group of layers.
    func selection(_ routing: ExpertRouting) throws -> RoutedSelection {
        try routing.derived { try RoutedSelection(routing, pool: pool) }
    }

    /// Whether gathered execution is faster or the only one available.
    private func isGathered(_ routing: ExpertRouting) -> Bool {
        expertExecution == .sparse || routing.needsPairs || isBatchInvariant
            || (expertExecution != .dense && routing.left.shape[0] > policy.denseTokens)
    }
}

/// What a forward pass stores for its gradient.
enum SavedExperts: Sendable {
    /// Nothing: the gradient gathers the selected experts again.
    case dense
    case gathered(GatheredActivations)
    /// Nothing: packed weights are for inference.
    case packed
}

/// Checked extents of an expert layer's weights.
struct ExpertExtents {
    /// Width of the layer, d.
    let width: Int
    /// Experts per side.
    let experts: Int
    /// Hidden units per expert, on each side that has any.
    let units: Int
    /// Columns of the output that each projection writes.
    let part: Int

    init(_ weights: ExpertWeights<Tensor>, _ backend: CPUBackend) throws {
        func fail(_ expected: String, _ found: String) -> ComputeError {
            .shapeMismatch(operation: "experts", expected: expected, found: found)
        }
        let plan = weights.plan
        guard let first = weights.up.first, let experts = weights.down.first?.bias.rowCount, experts > 0,
            weights.up.count == plan.hidden.count, weights.down.count == plan.projections.count,
            first.weight.columnCount % plan.projections.count == 0
        else {
            throw fail(
                "weights of \(plan.hidden.count) hidden sides and \(plan.projections.count) projections",
                "\(weights.up.count) and \(weights.down.count)")
        }
        self.experts = experts
        width = first.weight.columnCount
        part = width / plan.projections.count
        units = first.weight.rowCount / experts
        for up in weights.up {
            try backend.requireReal(up.weight, "experts")
            try backend.requireReal(up.bias, "experts")
            guard up.weight.shape == [experts * units, width], up.bias.shape == [experts * units] else {
                throw fail(
                    "up-projections [\(experts) · m, \(width)] with a bias",
                    "\(up.weight.shape) and \(up.bias.shape)")
            }
        }
        for (projection, down) in zip(plan.projections, weights.down) {
            guard projection.sources.allSatisfy(plan.hidden.contains) else {
                throw fail("sources among the hidden sides", "\(projection.sources)")
            }
            let sources = projection.sources.count
            try backend.requireReal(down.bias, "experts")
            let fits: Bool
            switch down.matrices {
            case .columns(let list):
                for matrix in list { try backend.requireReal(matrix, "experts") }
                fits = list.count == sources && list.allSatisfy { $0.shape == [part, experts * units] }
            case .rows(let rows):
                try backend.requireReal(rows, "experts")
                fits = rows.shape == [experts * sources * units, part]
            }
            guard fits, down.bias.shape == [experts, part] else {
                throw fail(
                    "\(sources) down-projections to \(part) of \(experts) · \(units) units, "
                        + "with a bias [\(experts), \(part)]", "a bias \(down.bias.shape)")
            }
        }
    }
}

/// Checked extents of an expert layer's call.
struct ExpertShape {
    let tokens: Int
    let heads: Int
    let experts: Int
    let width: Int
    let units: Int
    let part: Int

    init(_ x: Tensor, _ routing: ExpertRouting, _ extents: ExpertExtents, _ backend: CPUBackend) throws {
        let (left, right) = (routing.left, routing.right)
        try backend.requireFloat32(x, "experts")
        try backend.requireFloat32(left, "experts")
        try backend.requireFloat32(right, "experts")
        tokens = x.rowCount
        (experts, width, units, part) = (extents.experts, extents.width, extents.units, extents.part)
        guard left.shape.count == 3, left.shape == right.shape, left.shape[0] == tokens,
            left.shape[2] == experts, x.columnCount == width
        else {
            throw ComputeError.shapeMismatch(
                operation: "experts",
                expected: "tokens [\(tokens), \(width)], probabilities [\(tokens), heads, \(experts)]",
                found: "\(x.shape), \(left.shape) and \(right.shape)")
        }
        heads = left.shape[1]
    }

    init(
        _ x: Tensor, _ routing: ExpertRouting, _ weights: ExpertWeights<Tensor>, _ backend: CPUBackend
    ) throws {
        try self.init(x, routing, ExpertExtents(weights, backend), backend)
    }
}

extension ExpertWeights.Down {
    /// Whether the matrices are packed in rows.
    var isPacked: Bool { if case .rows = matrices { true } else { false } }

    /// The matrices of the layout that can be trained.
    ///
    /// - Throws: `ComputeError.unsupported` for packed rows.
    func columns(_ operation: String, _ device: String) throws -> [Element] {
        guard case .columns(let list) = matrices else {
            throw ComputeError.unsupported(
                operation: operation + " of weights packed in rows", device: device)
        }
        return list
    }
}
