import MonetCompute

/// Vertically decomposed experts (equations 13 to 15): expert (i, j) joins a left half i and a right
/// half j of the hidden units, and writes the upper half of the output through i, the lower through j.
///
///     a_i   = σ(U¹_i h + b¹¹_i),  e_j = σ(U²_j h + b²¹_j)
///     upper = Σ_i V¹¹_i (Σ_h ĝ1_hi) a_i + Σ_i V¹²_i Σ_h ĝ1_hi Σ_j ĝ2_hj e_j + Σ_i (Σ_h ĝ1_hi) b¹²_i
///     lower = Σ_j V²¹_j Σ_h ĝ2_hj Σ_i ĝ1_hi a_i + Σ_j V²²_j (Σ_h ĝ2_hj) e_j + Σ_j (Σ_h ĝ2_hj) b²²_j
struct VerticalExperts: Sendable {
    let u1: Parameter
    let u1Bias: Parameter
    let u2: Parameter
    let u2Bias: Parameter
    let v11: Parameter
    let v12: Parameter
    let v21: Parameter
    let v22: Parameter
    let b1: Parameter
    let b2: Parameter

    func callAsFunction(_ h: Variable, _ routing: Routing, _ context: ForwardContext) throws -> Variable {
        try context.tape.verticalExperts(
            h, left: routing.left, right: routing.right, routing: routing.experts,
            weights: VerticalVariables(
                u1: context(u1), u1Bias: context(u1Bias), u2: context(u2), u2Bias: context(u2Bias),
                v11: context(v11), v12: context(v12), v21: context(v21), v22: context(v22), b1: context(b1),
                b2: context(b2)))
    }
}
