import CMonetKernels
import Foundation

// Attention of sequences with one new token each. All work for a head (rotating, caching, attending) is one
// short task on plain pointers, which prefetches what the next task reads.

extension CPUBackend {
    /// Fills the rows of `result` that belong to `segments`, of one token each, and their caches.
    ///
    /// - Throws: `ComputeError` if a cache does not fit.
    func attendSingleTokens(
        _ segments: [AttentionLayout.Segment], _ input: AttentionInput, _ layout: AttentionLayout,
        into result: AttentionResult
    ) throws {
        let tokens = try segments.map { try SingleToken($0, input, layout, result, instructionSet) }
        let (groups, heads, width) = (input.keyValueHeads, layout.headsPerKey, layout.headWidth)
        let (query, key, value) = (input.query.pointer, input.key.pointer, input.value.pointer)
        let (rotatedQuery, rotatedKey) = (result.query.pointer, result.key.pointer)
        let (output, logSumExp) = (result.output.pointer, result.logSumExp.pointer)
        let longest = tokens.reduce(0) { max($0, $1.count) }
        pool.forEachRange(of: tokens.count * groups, minimum: 2, perThread: 8) { range, _ in
            let scores = Tensor(uninitialized: [heads, longest])
            for task in range {
                let (token, group) = (tokens[task / groups], task % groups)
                let queries = token.row * layout.queryStride + group * heads * width
                let place = token.row * layout.keyStride + group * width
                rotate(
                    query + queries, heads: heads, width: width, sign: 1, position: token.count - 1,
                    input.rotary, into: rotatedQuery + queries)
                rotate(
                    key + place, heads: 1, width: width, sign: 1, position: token.count - 1, input.rotary,
                    into: rotatedKey + place)
                if let cache = token.cache {
                    let row = group * token.capacity + token.count - 1 - token.shared
                    store(rotatedKey + place, rows: 1, stride: width, to: cache.keys, at: row)
                    store(value + place, rows: 1, stride: width, to: cache.values, at: row)
                }
                let (keys, values) = (token.keys(group), token.values(group))
                let (shared, own) = (token.shared, token.count - token.shared)
                if let beginning = token.beginning(group) {
                    token.format.dot(
                        scores.pointer, token.count, rotatedQuery + queries, width * 4, nil, heads,
                        beginning.keys, token.rowBytes, shared, width, keys)
                }
                token.format.dot(
                    scores.pointer + shared, token.count, rotatedQuery + queries, width * 4, nil, heads, keys,
                    token.rowBytes, own, width, values)
                for head in 0..<heads {
                    logSumExp[token.row * layout.heads + group * heads + head] = kernels.softmax(
                        scores.pointer + head * token.count, layout.scale, token.count)
                }
                memset(output + queries, 0, heads * width * 4)
                if let beginning = token.beginning(group) {
                    token.format.accumulate(
                        output + queries, width, nil, heads, scores.pointer, token.count, beginning.values,
                        token.rowBytes, shared, 0, width, width, values)
                }
                let next = task + 1 < tokens.count * groups ? task + 1 : task
                token.format.accumulate(
                    output + queries, width, nil, heads, scores.pointer + shared, token.count, values,
                    token.rowBytes, own, 0, width, width,
                    tokens[next / groups].keys(next % groups))
            }
        }
        withExtendedLifetime((segments, input)) {}
    }
}

/// The one new token of a sequence, and where the rows of all its tokens are: in its cache, or the
/// projections themselves.
private struct SingleToken {
    let row: Int
    /// Tokens to attend to, itself included.
    let count: Int
    let cache: AttentionCache?
    /// Rows of a head's keys in the cache.
    let capacity: Int
    let rowBytes: Int
    let format: monet_row_kernels
    private let firstKeys: UnsafeMutableRawPointer
    private let firstValues: UnsafeMutableRawPointer
    private let headBytes: Int
    private let firstShared: (keys: UnsafeMutableRawPointer, values: UnsafeMutableRawPointer, headBytes: Int)?
    /// Tokens whose keys and values lie in another cache.
    let shared: Int

    init(
        _ segment: AttentionLayout.Segment, _ input: AttentionInput, _ layout: AttentionLayout,
        _ result: AttentionResult, _ instructionSet: Kernels
    ) throws {
        row = segment.firstRow
        count = segment.position + 1
        cache = segment.cache
        shared = segment.shared
        firstShared = segment.cache?.beginning.map {
            ($0.keys.address, $0.values.address, $0.keys.byteCount / input.keyValueHeads)
        }
        if let cache {
            try layout.check(cache, segment)
            capacity = cache.keys.rowCount / input.keyValueHeads
            rowBytes = cache.keys.rowByteCount
            headBytes = capacity * rowBytes
            (firstKeys, firstValues) = (cache.keys.address, cache.values.address)
        } else {
            capacity = 1
            rowBytes = layout.headWidth * 4
            headBytes = rowBytes
            let offset = segment.firstRow * layout.keyStride * 4
            firstKeys = result.key.address + offset
            firstValues = input.value.address + offset
        }
        let dtype = cache?.keys.dtype ?? .float32
        guard let format = instructionSet.rows(dtype), format.prepare == nil else {
            throw ComputeError.unsupportedDType(operation: "attention", dtype: dtype)
        }
        self.format = format
    }

    func keys(_ group: Int) -> UnsafeMutableRawPointer { firstKeys + group * headBytes }
    func values(_ group: Int) -> UnsafeMutableRawPointer { firstValues + group * headBytes }

    /// The rows that lie in another cache.
    func beginning(_ group: Int) -> (keys: UnsafeMutableRawPointer, values: UnsafeMutableRawPointer)? {
        firstShared.map { ($0.keys + group * $0.headBytes, $0.values + group * $0.headBytes) }
    }
}
