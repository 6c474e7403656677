import MonetCompute

/// Vertically decomposed experts (equations 13 to 15): expert (i, j) joins a left half i and a right
/// half j of the hidden units, and writes the upper half of the output through i and the lower through j.
///
///     a_i   = σ(U¹_i h + b¹¹_i),  e_j = σ(U²_j h + b²¹_j)
///     upper = Σ_i V¹¹_i (Σ_h ĝ1_hi) a_i + Σ_i V¹²_i Σ_h ĝ1_hi Σ_j ĝ2_hj e_j + Σ_i (Σ_h ĝ1_hi) b¹²_i
///     lower = Σ_j V²¹_j Σ_h ĝ2_hj Σ_i ĝ1_hi a_i + Σ_j V²²_j (Σ_h ĝ2_hj) e_j + Σ_j (Σ_h ĝ2_hj) b²²_j
public struct VerticalExperts: MonetExperts {
    public static let name = "vertical"
    public static let presetEnding = "vd"
    public static let plan = ExpertPlan.vertical
    public static let names = ExpertTensorNames(
        up: ["u1", "u2"],
        down: [
            (matrices: ["v11", "v12"], bias: "b1", packed: "down1"),
            (matrices: ["v21", "v22"], bias: "b2", packed: "down2"),
        ])

    public var settings: ExpertSettings

    public init(_ settings: ExpertSettings = ExpertSettings()) { self.settings = settings }
}
