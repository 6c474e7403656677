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
    /// Share of a layer's weights of units that a token needs, mean over groups; 1 without groups.
    var activeShare: Double { mean(\.ofToken) }

    /// Share that any token needs.
    var unionShare: Double { mean(\.ofBatch) }

    private func mean(_ share: (WeightShares) -> Double) -> Double {
        groups.isEmpty ? 1 : groups.reduce(0) { $0 + share($1.weightShares()) } / Double(groups.count)
    }
}
