import MonetCompute

/// The output of a forward pass. Rows are the sequences' tokens, one sequence after another.
public struct ForwardOutput {
    /// Hidden states after the final norm, `[tokens, d]`.
    public let hidden: Variable
    /// The activations of each group of units, in the order of groups.
    public let groups: [any UnitActivations]
    /// The sequences' caches with the new tokens, in order; empty if no sequence had one.
    public let caches: [KVCache]
    /// Batch statistics of the routers, for `MonetLanguageModel.updateRouters`, if they normalized.
    public let routerStatistics: [RouterBatchStatistics]
    /// Values at observed hook points; in a pass with gradients, each has its gradient after `backward`.
    public let observations: [HookPoint: Variable]
    let pass: ForwardPass

    /// The routing of each layer that owns a product router.
    public var routings: [Routing] { groups.compactMap { $0 as? Routing } }

    /// Bytes that the pass keeps for its gradients, without what operations keep within.
    public var recordedBytes: Int { pass.tape.recordedBytes }

    /// Propagates gradients back from the losses so far, and adds them to the pass's parameter variables.
    public func backward() throws { try pass.tape.backward() }
}
