import MonetCompute
import MonetModel

/// The least operations and bytes that a forward pass needs.
public struct WorkEstimate: Sendable {
    /// Multiplications and additions per token.
    public let operationsPerToken: Double
    /// Bytes of weights and of the KV cache read per token.
    public let bytesPerToken: Double
    /// Share of a side's experts that a token selects, over all heads.
    public let activeShare: Double

    /// - Parameters:
    ///   - tokens: tokens of one pass, which share the weights that it reads.
    ///   - activeShare, unionShare: the share of a side's experts that one token selects, and that all
    ///     tokens of the pass together select.
    ///   - logits: rows that the output head computes.
    init(
        _ model: MonetLanguageModel, tokens: Int, streams: Int, activeShare: Double, unionShare: Double,
        logits: Int, context: Int
    ) {
        self.activeShare = activeShare
        let c = model.configuration
        var operations = 0.0
        var bytes = 0.0
        for parameter in model.parameters.all where parameter.role.isParameter {
            let (count, size) = (Double(parameter.tensor.count), Double(parameter.tensor.byteCount))
            let isEmbedding = parameter.name.contains("embed_tokens")
            let isHead = parameter.name.hasPrefix("lm_head") || (isEmbedding && c.tieWordEmbeddings)
            if isHead {
                operations += 2 * count * Double(logits) / Double(tokens)
                bytes += size / Double(tokens)
            } else if isEmbedding {
                continue
            } else if parameter.role.isOfExperts {
                operations += 2 * count * activeShare
                bytes += size * unionShare / Double(tokens)
            } else {
                operations += parameter.role == .norm ? 0 : 2 * count
                bytes += size / Double(tokens)
            }
        }
        operations += 4 * Double(c.layerCount * context * c.attentionHeads * c.headWidth)
        bytes +=
            8 * Double(c.layerCount * context * c.keyValueHeads * c.headWidth) * Double(streams)
            / Double(tokens)
        operationsPerToken = operations
        bytesPerToken = bytes
    }
}

extension ForwardOutput {
    /// Share of a side's experts that a token selects, over all heads; 1 without routers.
    var activeShare: Double { share { $0.activeShare } }

    /// Share of a side's experts that any token selects.
    var unionShare: Double { share { $0.unionShare } }

    private func share(_ value: (Tensor) -> Double) -> Double {
        let sides = routings.flatMap { [$0.left.value, $0.right.value] }
        return sides.isEmpty ? 1 : sides.reduce(0) { $0 + value($1) } / Double(sides.count)
    }
}

extension Tensor {
    /// For probabilities `[tokens, heads, experts]`, the mean share of experts that a token selects.
    fileprivate var activeShare: Double {
        Double(selected().reduce(0) { $0 + $1.count }) / Double(max(1, shape[0] * shape[2]))
    }

    fileprivate var unionShare: Double {
        Double(selected().reduce(into: Set<Int>()) { $0.formUnion($1) }.count) / Double(max(1, shape[2]))
    }

    private func selected() -> [Set<Int>] {
        let (heads, experts) = (shape[1], shape[2])
        let values = floats()
        return (0..<shape[0]).map { token in
            Set(
                (0..<(heads * experts)).filter { values[token * heads * experts + $0] > 0 }.map {
                    $0 % experts
                })
        }
    }
}
