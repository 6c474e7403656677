/// Which names the blocks of a template read and set, as Jinja2 finds out before it runs the template.
///
/// A name whose first use in a block sets it belongs to the block from its start: until it is set, a block
/// inside sees it undefined, even if the template was given a variable of that name.
struct JinjaFrames {
    private struct Frame {
        let parent: Int?
        /// The names that the block itself uses, and whether the first use sets them whatever happens.
        var firstUses: [String: Bool] = [:]
        var reads: Set<String> = []
        /// The `if` statements of the block around the current place.
        var conditions = 0
    }

    private var frames: [Frame] = []
    private var path: [Int] = []

    /// The open `if` statements of the current block.
    var conditions: Int {
        get { path.last.map { frames[$0].conditions } ?? 0 }
        set { if let index = path.last { frames[index].conditions = newValue } }
    }

    /// Enters a block, and gives its number.
    mutating func open() -> Int {
        frames.append(Frame(parent: path.last))
        path.append(frames.count - 1)
        return frames.count - 1
    }

    /// Enters a block again.
    mutating func reopen(_ index: Int) { path.append(index) }

    mutating func close() { path.removeLast() }

    /// Notes a use of a name in the current block.
    mutating func note(_ name: String, isStore: Bool) {
        guard let index = path.last else { return }
        if frames[index].firstUses[name] == nil {
            frames[index].firstUses[name] = isStore && frames[index].conditions == 0
        }
        if !isStore { frames[index].reads.insert(name) }
    }

    /// The names that are undefined at the start of each block, of those that blocks inside read.
    func hiddenNames() -> [Int: [String]] {
        var readInside = frames.map { _ in Set<String>() }
        // A block comes after those around it.
        for index in frames.indices.reversed() {
            guard let parent = frames[index].parent else { continue }
            readInside[parent].formUnion(readInside[index].union(frames[index].reads))
        }
        var result: [Int: [String]] = [:]
        for (index, frame) in frames.enumerated() {
            let names = readInside[index].filter { name in
                frame.firstUses[name] == true && !isKnown(name, around: frame)
            }
            if !names.isEmpty { result[index] = names.sorted() }
        }
        return result
    }

    private func isKnown(_ name: String, around frame: Frame) -> Bool {
        var parent = frame.parent
        while let index = parent {
            if frames[index].firstUses[name] != nil { return true }
            parent = frames[index].parent
        }
        return false
    }
}
