import MonetCompute
import MonetFoundation
import MonetModel

/// How far a changed model still selects the experts that the model selected before.
///
/// For each token, head and side of a router: the share of the experts selected before that are selected now. Experts that
/// a mask removes still count as selected; what changes is the routing of the layers after them. Comparable with the
/// routing stability of GRIP (arXiv 2601.16905), whose formula is not published in the text that we could read.
public struct RoutingStability: Sendable, Equatable {
    /// By router, first layers first.
    public let routers: [Double]

    /// Mean over the routers.
    public var mean: Double { routers.reduce(0, +) / Double(max(1, routers.count)) }

    /// Runs the same tokens through both; nil for models without routers, or with different ones.
    ///
    /// - `step`: called after each pair of passes; throws to stop.
    package init?(
        of sequences: [[Int32]], before: UnlearningSubject, after: UnlearningSubject, step: () throws -> Void
    ) throws {
        let layers = before.model.configuration.routerLayers
        guard !layers.isEmpty, after.model.configuration.routerLayers == layers,
            after.model.configuration.experts?.perSide == before.model.configuration.experts?.perSide,
            after.model.configuration.experts?.heads == before.model.configuration.experts?.heads
        else { return nil }
        var sums = layers.map { _ in (kept: 0, selected: 0) }
        // As many tokens at a time as keep the probabilities of all routers small.
        var rest = sequences[...]
        while let first = rest.first {
            var batch = [first]
            rest = rest.dropFirst()
            while let next = rest.first, batch.reduce(next.count, { $0 + $1.count }) <= 512 {
                batch.append(next)
                rest = rest.dropFirst()
            }
            let outputs = try [before, after].map { subject in
                try subject.model.forward(ForwardInput(batch, mask: subject.mask), on: subject.backend)
            }
            for (place, pair) in zip(outputs[0].routings, outputs[1].routings).enumerated() {
                for (old, new) in [(pair.0.left, pair.1.left), (pair.0.right, pair.1.right)] {
                    let (was, now) = (old.value.floats(), new.value.floats())
                    for index in was.indices where was[index] > 0 {
                        sums[place].selected += 1
                        if now[index] > 0 { sums[place].kept += 1 }
                    }
                }
            }
            try step()
        }
        routers = sums.map { Double($0.kept) / Double(max(1, $0.selected)) }
    }
}
