import MonetModel

/// Three layers in odd sizes, of which two share a router.
public func smallConfiguration(_ kind: MonetConfiguration.FeedForward) -> MonetConfiguration {
    var c = MonetConfiguration()
    c.feedForward = kind
    c.vocabularySize = 67
    c.hiddenSize = 36
    c.layerCount = 3
    c.attentionHeads = 3
    c.keyValueHeads = 3
    c.headWidth = 12
    c.maxPositionEmbeddings = 64
    c.expertWidth = 6
    c.routingHeads = 2
    c.expertsPerSide = 10
    c.topK = 3
    c.layersPerRouter = 2
    c.intermediateSize = 50
    return c
}
