import CMonetKernels

/// One side's selected experts in compact form: an entry for each expert that any head of a token
/// selects, ordered by expert and then by token.
///
/// Everything that is computed for an expert is stored in rows of `[entryCount, width]` tensors, so
/// that time and memory grow with the number of selected experts and not with E.
struct ExpertSelection {
    let tokens: Int
    let heads: Int
    let experts: Int
    /// Entries of expert i are `offsets[i]..<offsets[i + 1]`.
    let offsets: [Int]
    /// The token of each entry, ascending within an expert.
    let tokenOfEntry: Tensor
    /// Probability summed over heads, `[entryCount]`.
    let sums: Tensor
    /// Lists of each token's heads, bounded by `headOffsets[token · heads + head]` and the next element.
    private let headOffsets: [Int]
    private let entries: Tensor
    private let expertOfEntry: Tensor
    private let values: Tensor

    var entryCount: Int { offsets[experts] }

    /// Experts that have entries, ascending.
    let occupied: [Int32]

    /// Compresses probabilities `[tokens, heads, experts]`.
    init(_ probabilities: Tensor, pool: WorkerPool) {
        let (tokens, heads, experts) = (
            probabilities.shape[0], probabilities.shape[1], probabilities.shape[2]
        )
        (self.tokens, self.heads, self.experts) = (tokens, heads, experts)
        let lists = tokens * heads
        // Every list gets the maximum size first: the number selected is known only afterwards.
        let found = Tensor(uninitialized: [lists, experts], dtype: .int32)
        let foundIndices = found.address.assumingMemoryBound(to: Int32.self)
        var counts = [Int](repeating: 0, count: lists)
        counts.withUnsafeMutableBufferPointer { counts in
            // Every thread writes the counts of its own lists.
            nonisolated(unsafe) let counts = counts
            pool.forEachRange(of: lists, minimum: 16) { range, _ in
                for list in range {
                    let row = probabilities.pointer + list * experts
                    let out = foundIndices + list * experts
                    var count = 0
                    for expert in 0..<experts {
                        // Always written but kept only if non-zero, so that there is no branch to mispredict.
                        out[count] = Int32(truncatingIfNeeded: expert)
                        count &+= row[expert] != 0 ? 1 : 0
                    }
                    counts[list] = count
                }
            }
        }
        var headOffsets = [0]
        headOffsets.reserveCapacity(lists + 1)
        for count in counts { headOffsets.append(headOffsets[headOffsets.count - 1] + count) }
        let selected = headOffsets[lists]

        // The union over heads, counted by expert, then placed by expert.
        var lastToken = [Int](repeating: -1, count: experts)
        var offsets = [Int](repeating: 0, count: experts + 1)
        for token in 0..<tokens {
            for list in (token * heads)..<((token + 1) * heads) {
                for place in 0..<counts[list] {
                    let expert = Int(foundIndices[list * experts + place])
                    if lastToken[expert] != token {
                        lastToken[expert] = token
                        offsets[expert + 1] += 1
                    }
                }
            }
        }
        for expert in 0..<experts { offsets[expert + 1] += offsets[expert] }
        let total = offsets[experts]
        let tokenOfEntry = Tensor(uninitialized: [total], dtype: .int32)
        let sums = Tensor(zeros: [total])
        let entries = Tensor(uninitialized: [selected], dtype: .int32)
        let expertOfEntry = Tensor(uninitialized: [selected], dtype: .int32)
        let values = Tensor(uninitialized: [selected])
        let tokenPointer = tokenOfEntry.address.assumingMemoryBound(to: Int32.self)
        let entryPointer = entries.address.assumingMemoryBound(to: Int32.self)
        let expertPointer = expertOfEntry.address.assumingMemoryBound(to: Int32.self)
        var next = offsets
        lastToken = [Int](repeating: -1, count: experts)
        for token in 0..<tokens {
            for list in (token * heads)..<((token + 1) * heads) {
                for place in 0..<counts[list] {
                    let index = foundIndices[list * experts + place]
                    let expert = Int(index)
                    if lastToken[expert] != token {
                        lastToken[expert] = token
                        tokenPointer[next[expert]] = Int32(token)
                        next[expert] += 1
                    }
                    let entry = next[expert] - 1
                    let value = probabilities.pointer[list * experts + expert]
                    let slot = headOffsets[list] + place
                    entryPointer[slot] = Int32(entry)
                    expertPointer[slot] = index
                    values.pointer[slot] = value
                    sums.pointer[entry] += value
                }
            }
        }
        self.offsets = offsets
        occupied = (0..<experts).compactMap { offsets[$0] < offsets[$0 + 1] ? Int32($0) : nil }
        self.tokenOfEntry = tokenOfEntry
        self.sums = sums
        self.headOffsets = headOffsets
        self.entries = entries
        self.expertOfEntry = expertOfEntry
        self.values = values
    }

    /// The tokens of entries, for kernels.
    var rows: UnsafeMutablePointer<Int32> { tokenOfEntry.address.assumingMemoryBound(to: Int32.self) }

    /// The experts that one head of one token selects.
    func list(token: Int, head: Int) -> monet_entries {
        let list = token * heads + head
        let start = headOffsets[list]
        return monet_entries(
            entry: entries.address.assumingMemoryBound(to: Int32.self) + start,
            expert: expertOfEntry.address.assumingMemoryBound(to: Int32.self) + start,
            value: values.pointer + start, count: headOffsets[list + 1] - start)
    }

    /// Length of the list of one head of one token, `list(token:head:)`.
    func count(token: Int, head: Int) -> Int {
        let list = token * heads + head
        return headOffsets[list + 1] - headOffsets[list]
    }

    /// Adds each entry's value to the probability gradients `[tokens, heads, experts]` of the heads
    /// that select it.
    func spread(_ dSums: UnsafePointer<Float>, into gradient: Tensor, pool: WorkerPool) {
        pool.forEachRange(of: tokens, minimum: 64) { range, _ in
            for token in range {
                for head in 0..<heads {
                    let list = list(token: token, head: head)
                    let row = gradient.pointer + (token * heads + head) * experts
                    for place in 0..<list.count {
                        row[Int(list.expert[place])] += dSums[Int(list.entry[place])]
                    }
                }
            }
        }
    }

    /// The entries of `expert` whose token lies in `range`.
    func entries(of expert: Int, in range: Range<Int>) -> Range<Int> {
        func firstEntry(atLeast token: Int) -> Int {
            var (low, high) = (offsets[expert], offsets[expert + 1])
            while low < high {
                let middle = (low + high) / 2
                if Int(rows[middle]) < token { low = middle + 1 } else { high = middle }
            }
            return low
        }
        return firstEntry(atLeast: range.lowerBound)..<firstEntry(atLeast: range.upperBound)
    }
}
