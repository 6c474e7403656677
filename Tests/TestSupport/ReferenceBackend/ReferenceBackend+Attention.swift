import MonetCompute

/// One head of one token: its row, its keys' head, and rows of keys and values of its sequence so far.
private struct HeadTask {
    let row: Int
    let head: Int
    let seen: Int
    /// First row of the sequence in this call.
    let firstRow: Int
    let segment: AttentionSegment
}

extension ReferenceBackend {
    public func attention(_ input: AttentionInput) throws -> AttentionResult {
        let pattern = try attentionPattern(input)
        let nothing = made(Reference(zeros: [0]))
        return AttentionResult(
            output: try attentionMixture(pattern, input: input), query: pattern, key: nothing,
            logSumExp: nothing)
    }

    /// The forward pass keeps its probabilities in the place of rotated queries.
    public func attentionGradient(
        _ outputGradient: Tensor, input: AttentionInput, result: AttentionResult,
        into queryGradient: Tensor, keyGradient: Tensor, valueGradient: Tensor
    ) throws {
        let patternGradient = try zeros(result.query.shape, dtype: .float32)
        try attentionMixtureGradient(
            outputGradient, pattern: result.query, input: input, into: patternGradient,
            valueGradient: valueGradient)
        try attentionPatternGradient(
            patternGradient, pattern: result.query, input: input, into: queryGradient,
            keyGradient: keyGradient)
    }

    public func attentionPattern(_ input: AttentionInput) throws -> Tensor {
        let width = input.query.columnCount / input.heads
        let (query, key) = (
            try rotated(input.query, heads: input.heads, input, sign: 1),
            try rotated(input.key, heads: input.keyValueHeads, input, sign: 1)
        )
        try keep(key, values(input.value), input)
        let reach = input.segments.reduce(0) { max($0, $1.position + $1.count) }
        var pattern = Reference(zeros: [query.rows, input.heads, reach])
        for task in tasks(input) {
            let group = task.head / (input.heads / input.keyValueHeads)
            let keys = try rows(task, group, width, of: key, \.keys, input)
            let scores = (0..<task.seen).map { past in
                (0..<width).reduce(0.0) { $0 + query[task.row, task.head * width + $1] * keys[past, $1] }
                    / Double(width).squareRoot()
            }
            for (past, p) in ReferenceMath.softmax(scores).enumerated() {
                pattern.values[(task.row * input.heads + task.head) * reach + past] = p
            }
        }
        return made(pattern)
    }

    public func attentionMixture(_ pattern: Tensor, input: AttentionInput) throws -> Tensor {
        let width = input.query.columnCount / input.heads
        let (p, value) = (try values(pattern), try values(input.value))
        var output = Reference(zeros: input.query.shape)
        for task in tasks(input) {
            let group = task.head / (input.heads / input.keyValueHeads)
            let rows = try rows(task, group, width, of: value, \.values, input)
            for past in 0..<task.seen {
                let share = p.values[(task.row * input.heads + task.head) * p.columns + past]
                for index in 0..<width {
                    output[task.row, task.head * width + index] += share * rows[past, index]
                }
            }
        }
        return made(output)
    }

    public func attentionMixtureGradient(
        _ outputGradient: Tensor, pattern: Tensor, input: AttentionInput, into patternGradient: Tensor,
        valueGradient: Tensor
    ) throws {
        let width = input.query.columnCount / input.heads
        let (d, p, value) = (try values(outputGradient), try values(pattern), try values(input.value))
        var (dPattern, dValue) = (Reference(zeros: p.shape), Reference(zeros: value.shape))
        for task in tasks(input) {
            let column = task.head / (input.heads / input.keyValueHeads) * width
            for past in 0..<task.seen {
                let place = (task.row * input.heads + task.head) * p.columns + past
                for index in 0..<width {
                    let own = d[task.row, task.head * width + index]
                    dPattern.values[place] += own * value[task.firstRow + past, column + index]
                    dValue[task.firstRow + past, column + index] += own * p.values[place]
                }
            }
        }
        try add(dPattern.values, into: patternGradient)
        try add(dValue.values, into: valueGradient)
    }

    public func attentionPatternGradient(
        _ patternGradient: Tensor, pattern: Tensor, input: AttentionInput, into queryGradient: Tensor,
        keyGradient: Tensor
    ) throws {
        let width = input.query.columnCount / input.heads
        let (d, p) = (try values(patternGradient), try values(pattern))
        let (query, key) = (
            try rotated(input.query, heads: input.heads, input, sign: 1),
            try rotated(input.key, heads: input.keyValueHeads, input, sign: 1)
        )
        var (dQuery, dKey) = (Reference(zeros: query.shape), Reference(zeros: key.shape))
        for task in tasks(input) {
            let column = task.head / (input.heads / input.keyValueHeads) * width
            let line = (task.row * input.heads + task.head) * p.columns
            let inner = (0..<task.seen).reduce(0.0) { $0 + d.values[line + $1] * p.values[line + $1] }
            for past in 0..<task.seen {
                let score =
                    p.values[line + past] * (d.values[line + past] - inner) / Double(width).squareRoot()
                for index in 0..<width {
                    dQuery[task.row, task.head * width + index] +=
                        score * key[task.firstRow + past, column + index]
                    dKey[task.firstRow + past, column + index] +=
                        score * query[task.row, task.head * width + index]
                }
            }
        }
        try add(rotated(made(dQuery), heads: input.heads, input, sign: -1).values, into: queryGradient)
        try add(rotated(made(dKey), heads: input.keyValueHeads, input, sign: -1).values, into: keyGradient)
    }

    private func tasks(_ input: AttentionInput) -> [HeadTask] {
        var first = 0
        return input.segments.flatMap { segment -> [HeadTask] in
            defer { first += segment.count }
            return (0..<segment.count).flatMap { token in
                (0..<input.heads).map {
                    HeadTask(
                        row: first + token, head: $0, seen: segment.position + token + 1, firstRow: first,
                        segment: segment)
                }
            }
        }
    }

    /// Pairs (i, i + half) of every head turned by the position's angle.
    private func rotated(_ x: Tensor, heads: Int, _ input: AttentionInput, sign: Double) throws -> Reference {
        let x = try values(x)
        let (cosine, sine) = (try values(input.rotary.cosine), try values(input.rotary.sine))
        let (width, half) = (x.columns / heads, x.columns / heads / 2)
        var result = x
        var row = 0
        for segment in input.segments {
            for token in 0..<segment.count {
                for head in 0..<heads {
                    for index in 0..<half {
                        let (low, high) = (head * width + index, head * width + index + half)
                        let c = cosine[segment.position + token, index]
                        let s = sign * sine[segment.position + token, index]
                        result[row, low] = x[row, low] * c - x[row, high] * s
                        result[row, high] = x[row, high] * c + x[row, low] * s
                    }
                }
                row += 1
            }
        }
        return result
    }

    /// Puts new keys and values into the caches, a head's rows together.
    private func keep(_ key: Reference, _ value: Reference, _ input: AttentionInput) throws {
        var first = 0
        for segment in input.segments {
            defer { first += segment.count }
            guard let cache = segment.cache else { continue }
            for (target, new) in [(cache.keys, key), (cache.values, value)] {
                var all = try values(target)
                let (capacity, width) = (all.rows / input.keyValueHeads, all.columns)
                for head in 0..<input.keyValueHeads {
                    for token in 0..<segment.count {
                        for index in 0..<width {
                            all[head * capacity + segment.position + token, index] =
                                new[first + token, head * width + index]
                        }
                    }
                }
                try replace(target, by: all.values)
            }
        }
    }

    /// Keys or values of a head from the sequence's first token on.
    private func rows(
        _ task: HeadTask, _ group: Int, _ width: Int, of new: Reference,
        _ part: KeyPath<AttentionCache, Tensor>, _ input: AttentionInput
    ) throws -> Reference {
        var result = Reference(zeros: [task.seen, width])
        let cached = try task.segment.cache.map { try values($0[keyPath: part]) }
        for past in 0..<task.seen {
            for index in 0..<width {
                result[past, index] =
                    cached.map { $0[group * ($0.rows / input.keyValueHeads) + past, index] }
                    ?? new[task.firstRow + past, group * width + index]
            }
        }
        return result
    }
}
