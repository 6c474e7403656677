extension MonetConfiguration {
    /// Names of the presets: a size with `-vd` (vertical), `-hd` (horizontal) or `-llama` (dense
    /// with as many parameters).
    public static let presetNames: [String] = sizes.flatMap { size in
        ["vd", "hd", "llama"].map { "\(size.name)-\($0)" }
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

    // The three published sizes and three that a processor trains.
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

    /// A preset by name, upper or lower case; a size alone means the vertical model.
    ///
    /// - Throws: `ModelError.unknownPreset`.
    public static func preset(_ name: String) throws -> MonetConfiguration {
        let lowered = name.lowercased()
        for size in sizes {
            let base = size.name.lowercased()
            let kinds: [(String, FeedForward)] = [
                (base, .vertical), ("\(base)-vd", .vertical), ("\(base)-hd", .horizontal),
                ("\(base)-llama", .dense),
            ]
            if let (_, kind) = kinds.first(where: { $0.0 == lowered }) { return configuration(size, kind) }
        }
        throw ModelError.unknownPreset(name: name, available: presetNames)
    }

    private static func configuration(_ size: Size, _ kind: FeedForward) -> MonetConfiguration {
        var result = MonetConfiguration()
        result.feedForward = kind == .dense ? .vertical : kind
        result.vocabularySize = size.vocabulary
        result.hiddenSize = size.width
        result.layerCount = size.layers
        result.attentionHeads = size.heads
        result.keyValueHeads = size.heads
        result.headWidth = size.width / size.heads
        result.maxPositionEmbeddings = size.context
        result.expertWidth = size.expertWidth
        result.routingHeads = size.routingHeads
        result.expertsPerSide = size.experts
        result.topK = size.topK
        result.layersPerRouter = size.layersPerRouter
        return kind == .dense ? result.denseOfEqualSize() : result
    }

    /// The same model with other feed-forward blocks of as many parameters.
    public func converted(to kind: FeedForward) -> MonetConfiguration {
        if kind == .dense, feedForward != .dense { return denseOfEqualSize() }
        var result = self
        result.feedForward = kind
        return result
    }

    /// A dense Llama with as many parameters as this Monet, to the nearest multiple of 8 hidden units.
    public func denseOfEqualSize() -> MonetConfiguration {
        var dense = self
        dense.feedForward = .dense
        dense.intermediateSize = 8
        let perUnit = 3 * hiddenSize * layerCount
        let missing = parameterCount - dense.parameterCount
        let units = 8 + Int((Double(missing) / Double(perUnit)).rounded())
        dense.intermediateSize = Swift.max(8, (units + 4) / 8 * 8)
        return dense
    }
}
