import MonetCompute

extension ExpertWeights {
    /// From a list: of horizontal experts u, its bias, v, b; of vertical ones u1, its bias, u2, its bias, v11, v12,
    /// v21, v22, b1, b2.
    public init(listed t: [Element]) {
        if t.count == 4 {
            self.init(
                .horizontal, up: [.init(weight: t[0], bias: t[1])],
                down: [.init(.columns([t[2]]), bias: t[3])])
        } else {
            self.init(
                .vertical, up: [.init(weight: t[0], bias: t[1]), .init(weight: t[2], bias: t[3])],
                down: [
                    .init(.columns([t[4], t[5]]), bias: t[8]), .init(.columns([t[6], t[7]]), bias: t[9]),
                ])
        }
    }
}

extension ExpertWeights<Tensor> {
    /// The same with down-projections packed by expert.
    public func packed(experts: Int) -> ExpertWeights {
        var result = self
        for (place, down) in down.enumerated() {
            if case .columns(let matrices) = down.matrices {
                result.down[place].matrices = .rows(.expertRows(of: matrices, experts: experts))
            }
        }
        return result
    }

    /// The same with the matrices of experts in another type; biases stay.
    public func converted(to dtype: DType) -> ExpertWeights {
        ExpertWeights(
            plan,
            up: up.map { .init(weight: $0.weight.converted(to: dtype), bias: $0.bias) },
            down: down.map { down in
                let matrices: Down.Matrices =
                    switch down.matrices {
                    case .columns(let list): .columns(list.map { $0.converted(to: dtype) })
                    case .rows(let rows): .rows(rows.converted(to: dtype))
                    }
                return .init(matrices, bias: down.bias)
            })
    }
}
