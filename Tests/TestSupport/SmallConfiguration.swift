import MonetModel

/// The feed-forward families under test.
public enum Family: String, Sendable, CaseIterable {
    case vertical
    case horizontal
    case dense

    /// The family in a small model; odd sizes where it allows them.
    public var small: any FeedForwardFamily {
        let settings = ExpertSettings(width: 6, heads: 2, perSide: 10, topK: 3, layersPerRouter: 2)
        return switch self {
        case .vertical: VerticalExperts(settings)
        case .horizontal: HorizontalExperts(settings)
        case .dense: DenseFeedForward(intermediateSize: 50)
        }
    }
}

/// Three layers in odd sizes, of which two share a router.
public func smallConfiguration(_ family: Family) -> MonetConfiguration {
    var c = MonetConfiguration()
    c.feedForward = family.small
    c.vocabularySize = 67
    c.hiddenSize = 36
    c.layerCount = 3
    c.attentionHeads = 3
    c.keyValueHeads = 3
    c.headWidth = 12
    c.maxPositionEmbeddings = 64
    return c
}
