extension MonetConfiguration {
    /// Names of the presets: a size with the suffix of a family, `-vd` (vertical), `-hd` (horizontal) or
    /// `-llama` (dense with as many parameters).
    public static let presetNames: [String] = sizes.flatMap { size in
        FeedForwardFamilies.all.map { "\(size.name)-\($0.presetEnding)" }
    }

    private struct Size {
        let name: String
        let layers: Int
        let width: Int
        let heads: Int
        let expertWidth: Int
        let routingHeads: Int
        var experts = 512
        var topK = 8
        var vocabulary = 32000
        var context = 2048
        var layersPerRouter = 4
    }

    // The three published sizes and three that can be trained on an ordinary processor.
    private static let sizes = [
        Size(
            name: "nano", layers: 4, width: 128, heads: 4, expertWidth: 8, routingHeads: 2, experts: 64,
            topK: 4,
            vocabulary: 4096, context: 256, layersPerRouter: 2),
        Size(
            name: "tiny", layers: 4, width: 256, heads: 4, expertWidth: 8, routingHeads: 4, experts: 64,
            topK: 4,
            vocabulary: 4096, context: 256, layersPerRouter: 2),
        Size(
            name: "small", layers: 8, width: 512, heads: 8, expertWidth: 16, routingHeads: 4, experts: 256,
            topK: 8,
            vocabulary: 8192, context: 512),
        Size(name: "850M", layers: 24, width: 1536, heads: 12, expertWidth: 12, routingHeads: 6),
        Size(name: "1.4B", layers: 24, width: 2048, heads: 16, expertWidth: 16, routingHeads: 8),
        Size(name: "4.1B", layers: 32, width: 3072, heads: 24, expertWidth: 24, routingHeads: 12),
    ]

    /// A preset by name, in upper or lower case; a size alone means the vertical model.
    ///
    /// - Throws: `ModelError.unknownPreset`.
    public static func preset(_ name: String) throws -> MonetConfiguration {
        let lowered = name.lowercased()
        for size in sizes {
            let base = size.name.lowercased()
            if lowered == base { return configuration(size) }
            for family in FeedForwardFamilies.all where lowered == "\(base)-\(family.presetEnding)" {
                return try configuration(size).converted(to: family)
            }
        }
        throw ModelError.unknownPreset(name: name, available: presetNames)
    }

    private static func configuration(_ size: Size) -> MonetConfiguration {
        var result = MonetConfiguration()
        result.vocabularySize = size.vocabulary
        result.hiddenSize = size.width
        result.layerCount = size.layers
        result.attentionHeads = size.heads
        result.keyValueHeads = size.heads
        result.headWidth = size.width / size.heads
        result.maxPositionEmbeddings = size.context
        result.feedForward = VerticalExperts(
            ExpertSettings(
                width: size.expertWidth, heads: size.routingHeads, perSide: size.experts, topK: size.topK,
                layersPerRouter: size.layersPerRouter))
        return result
    }

    /// The same model with feed-forward blocks of another family and about as many parameters.
    ///
    /// - Throws: `ModelError.invalidInput` if there is no such conversion.
    public func converted(to family: any FeedForwardFamily.Type) throws -> MonetConfiguration {
        var result = self
        result.feedForward = try family.init(replacing: feedForward, in: self)
        return result
    }
}
