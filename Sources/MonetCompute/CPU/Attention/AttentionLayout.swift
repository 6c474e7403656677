/// Checked extents of an attention call.
struct AttentionLayout {
    struct Segment {
        let firstRow: Int
        let count: Int
        let position: Int
        let cache: AttentionCache?

        /// Tokens whose keys and values lie in another cache.
        var shared: Int { cache?.beginning?.count ?? 0 }
    }

    let segments: [Segment]
    let headWidth: Int
    let heads: Int
    let headsPerKey: Int
    let queryStride: Int
    let keyStride: Int
    let scale: Float
    /// Tokens of the longest sequence, earlier ones included.
    let reach: Int

    init(_ input: AttentionInput) throws {
        let tokens = input.query.rowCount
        func check(_ condition: Bool, _ expected: String, _ found: String) throws {
            if !condition {
                throw ComputeError.shapeMismatch(operation: "attention", expected: expected, found: found)
            }
        }
        try check(
            input.heads > 0 && input.keyValueHeads > 0 && input.heads % input.keyValueHeads == 0,
            "query heads to be a multiple of key-value heads", "\(input.heads) and \(input.keyValueHeads)")
        var firstRow = 0
        var segments: [Segment] = []
        for segment in input.segments {
            try check(
                segment.count >= 0 && segment.position >= 0, "counts and positions of 0 or more",
                "\(segment.count) at \(segment.position)")
            segments.append(
                Segment(
                    firstRow: firstRow, count: segment.count, position: segment.position, cache: segment.cache
                ))
            firstRow += segment.count
        }
        self.segments = segments
        try check(firstRow == tokens, "sequences of \(tokens) tokens together", "\(firstRow)")
        for segment in segments {
            try check(
                segment.position == 0 || segment.cache != nil, "a cache for a sequence's earlier tokens",
                "none before position \(segment.position)")
        }
        try check(
            input.query.columnCount % input.heads == 0, "a width that \(input.heads) heads divide",
            "\(input.query.columnCount)")
        heads = input.heads
        headWidth = input.query.columnCount / input.heads
        headsPerKey = input.heads / input.keyValueHeads
        queryStride = input.heads * headWidth
        keyStride = input.keyValueHeads * headWidth
        scale = 1 / Float(headWidth).squareRoot()
        for other in [input.key, input.value] {
            try check(
                other.shape == [tokens, keyStride], "keys and values [\(tokens), \(keyStride)]",
                "\(other.shape)")
        }
        reach = segments.reduce(0) { max($0, $1.position + $1.count) }
        try check(
            input.rotary.cosine.columnCount * 2 == headWidth && input.rotary.cosine.rowCount >= reach,
            "a rotary table [\(reach) or more, \(headWidth / 2)]", "\(input.rotary.cosine.shape)")
    }

    /// Checks that a sequence's cache has the right shape and room for its new tokens.
    ///
    /// - Throws: `ComputeError.shapeMismatch`, `ComputeError.indexOutOfRange`.
    func check(_ cache: AttentionCache, _ segment: Segment) throws {
        let (heads, end) = (heads / headsPerKey, segment.position + segment.count)
        let (keys, values) = (cache.keys, cache.values)
        guard keys.columnCount == headWidth, keys.rowCount % heads == 0, values.shape == keys.shape,
            values.dtype == keys.dtype, keys.isOnHost, values.isOnHost
        else {
            throw ComputeError.shapeMismatch(
                operation: "key-value cache",
                expected: "keys and values [\(heads) · capacity, \(headWidth)] of one type",
                found: "\(keys.dtype) \(keys.shape) and \(values.dtype) \(values.shape)")
        }
        guard end - segment.shared <= keys.rowCount / heads else {
            throw ComputeError.indexOutOfRange(
                operation: "key-value cache", index: end - 1, limit: segment.shared + keys.rowCount / heads)
        }
        guard let beginning = cache.beginning else { return }
        guard beginning.keys.columnCount == headWidth, beginning.keys.rowCount % heads == 0,
            beginning.values.shape == beginning.keys.shape, beginning.keys.dtype == keys.dtype,
            beginning.values.dtype == keys.dtype, beginning.keys.isOnHost, beginning.values.isOnHost,
            beginning.count >= 0, beginning.count <= segment.position,
            beginning.count <= beginning.keys.rowCount / heads
        else {
            throw ComputeError.shapeMismatch(
                operation: "key-value cache",
                expected: "a beginning of at most \(segment.position) tokens in \(keys.dtype) "
                    + "[\(heads) · capacity, \(headWidth)]",
                found: "\(beginning.count) tokens in \(beginning.keys.dtype) \(beginning.keys.shape)")
        }
    }

    /// Checks that all of a sequence's tokens are in its own cache.
    ///
    /// - Throws: `ComputeError.shapeMismatch`.
    func requireWhole(_ segment: Segment) throws {
        guard segment.shared == 0 else {
            throw ComputeError.shapeMismatch(
                operation: "attention", expected: "caches that share no beginning",
                found: "\(segment.shared) shared tokens")
        }
    }
}
