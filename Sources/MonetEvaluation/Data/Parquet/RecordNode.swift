/// The shape of a value in a row, and the levels at which its parts are there.
///
/// A column's definition level counts how many of the optional and repeated parts on its path are there, its
/// repetition level says which of the repeated ones goes on (Melnik et al. 2010, Dremel, section 4).
indirect enum RecordNode: Sendable {
    /// A value without parts: the place of its column, the level at which its parent is there, and its own.
    case leaf(Int, parent: Int, definition: Int)
    /// A structure.
    case group([Field], Presence)
    /// A list: an element is there from the level `entry` on, another follows at the level `repetition`.
    case list(element: RecordNode, entry: Int, repetition: Int, Presence)

    struct Field: Sendable {
        let name: String
        let node: RecordNode
    }

    /// When a structure or a list is there.
    struct Presence: Sendable {
        /// The columns of its parts, of which there is at least one.
        let leaves: Range<Int>
        /// The definition level from which on its parent is there.
        let parent: Int
        /// The definition level from which on it is not null itself.
        let definition: Int
    }

    /// The shape of the values of a column or a part of one.
    ///
    /// - `parent`: the definition level from which on its parent is there.
    /// - Throws: `ParquetFault`.
    init(_ node: ParquetSchema.Node, parent: Int) throws {
        guard node.isRepeated else {
            self = try Self.single(node, parent: parent)
            return
        }
        // Repeated outside of a list: a list that is never null, of elements that are not null.
        self = .list(
            element: try Self.single(node, parent: node.definition), entry: node.definition,
            repetition: node.repetition,
            Presence(leaves: node.leaves, parent: parent, definition: parent))
    }

    /// The shape of one value, where a node that repeats has several.
    private static func single(_ node: ParquetSchema.Node, parent: Int) throws -> RecordNode {
        if node.children.isEmpty {
            return .leaf(node.leaves.lowerBound, parent: parent, definition: node.definition)
        }
        let presence = Presence(leaves: node.leaves, parent: parent, definition: node.definition)
        switch node.annotation {
        case .list:
            let repeated = try repeatedChild(node, "list")
            return .list(
                element: try element(repeated, of: node), entry: repeated.definition,
                repetition: repeated.repetition, presence)
        case .map:
            let repeated = try repeatedChild(node, "map")
            guard (1...2).contains(repeated.children.count) else {
                throw ParquetFault.malformed(
                    "the entries of the map \"\(node.name)\" have \(repeated.children.count) parts, expected 2"
                )
            }
            let fields = try zip(["key", "value"], repeated.children).map { name, child in
                Field(name: name, node: try RecordNode(child, parent: repeated.definition))
            }
            let entry = Presence(
                leaves: node.leaves, parent: repeated.definition, definition: repeated.definition)
            return .list(
                element: .group(fields, entry), entry: repeated.definition, repetition: repeated.repetition,
                presence)
        default:
            return .group(
                try node.children.map {
                    Field(name: $0.name, node: try RecordNode($0, parent: node.definition))
                }, presence)
        }
    }

    private static func repeatedChild(_ node: ParquetSchema.Node, _ kind: String) throws -> ParquetSchema.Node
    {
        guard node.children.count == 1, let child = node.children.first, child.isRepeated else {
            throw ParquetFault.malformed("the \(kind) \"\(node.name)\" has no single repeated part")
        }
        return child
    }

    /// The elements of a list: today's writers put them into a group of their own, whose level says whether they
    /// are null; older ones repeated the elements themselves. The rules by which they are told apart are those of
    /// "Backward-compatibility rules" in the format's description of lists.
    private static func element(_ repeated: ParquetSchema.Node, of list: ParquetSchema.Node) throws
        -> RecordNode
    {
        let isElementItself =
            repeated.children.count != 1 || repeated.children[0].isRepeated
            || repeated.annotation == .list || repeated.annotation == .map
            || repeated.name == "array" || repeated.name == list.name + "_tuple"
        return isElementItself
            ? try single(repeated, parent: repeated.definition)
            : try RecordNode(repeated.children[0], parent: repeated.definition)
    }
}
