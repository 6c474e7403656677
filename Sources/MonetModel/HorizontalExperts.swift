import MonetCompute

/// Horizontally decomposed experts (equations 6 to 12): expert (i, j) is V_j σ(U_i x + b¹_i) + b²_j.
///
///     a_i = σ(U_i h + b¹_i)
///     c_j = Σ_h ĝ2_hj Σ_i ĝ1_hi a_i
///     y   = Σ_j V_j c_j + Σ_j (Σ_h ĝ2_hj) b²_j
struct HorizontalExperts: Sendable {
    let u: Parameter
    let uBias: Parameter
    let v: Parameter
    let b: Parameter

    func callAsFunction(_ h: Variable, _ routing: Routing, _ context: ForwardContext) throws -> Variable {
        try context.tape.horizontalExperts(
            h, left: routing.left, right: routing.right, routing: routing.experts, u: context(u),
            uBias: context(uBias), v: context(v),
            b: context(b))
    }
}
