import MonetCompute

/// What a forward pass gives. Rows are the sequences' tokens, one sequence after the other.
public struct ForwardOutput {
    /// After the final norm, `[tokens, d]`.
    public let hidden: Variable
    /// What each group of units left, groups in order.
    public let groups: [any UnitActivations]
    /// The sequences' caches with the new tokens, in order; empty if no sequence had one.
    public let caches: [KVCache]
    /// Batch statistics of the routers, for `MonetLanguageModel.updateRouters`, if they normalized.
    public let routerStatistics: [RouterBatchStatistics]
    /// Values of observed places; in a pass with gradients each has its own after `backward`.
    public let observations: [HookPoint: Variable]
    let pass: ForwardPass

    /// The routing of each layer that owns a product router.
    public var routings: [Routing] { groups.compactMap { $0 as? Routing } }

    /// Runs gradients back from the losses so far; they add up in the pass's parameter variables.
    public func backward() throws { try pass.tape.backward() }
}
