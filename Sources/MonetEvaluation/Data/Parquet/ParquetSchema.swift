/// A column that has no parts: the leaves of the schema's tree, in whose order the columns are stored.
struct ParquetLeaf: Sendable {
    /// The names from the top-level column down.
    let path: [String]
    let type: PhysicalType
    /// Bytes of each value, of types whose values have all the same size.
    let width: Int
    let annotation: SchemaElement.Annotation?
    /// How many of the names in the path may be absent: the level at which there is a value.
    let definition: Int
    /// How many of the names in the path may be repeated.
    let repetition: Int

    /// The path for messages.
    var name: String { path.joined(separator: ".") }
}

/// How values are stored.
enum PhysicalType: Int, Sendable {
    case boolean, int32, int64, int96, float, double, byteArray, fixedLengthByteArray

    var name: String {
        switch self {
        case .boolean: "BOOLEAN"
        case .int32: "INT32"
        case .int64: "INT64"
        case .int96: "INT96"
        case .float: "FLOAT"
        case .double: "DOUBLE"
        case .byteArray: "BYTE_ARRAY"
        case .fixedLengthByteArray: "FIXED_LEN_BYTE_ARRAY"
        }
    }
}

/// The tree of columns.
struct ParquetSchema: Sendable {
    /// The columns, with the shape of the values that rows have there.
    private(set) var columns: [RecordNode.Field] = []
    private(set) var leaves: [ParquetLeaf] = []

    /// A column or a group of columns.
    struct Node {
        let name: String
        let annotation: SchemaElement.Annotation?
        let isOptional: Bool
        let isRepeated: Bool
        /// The levels at which a value is there, and at which it repeats.
        let definition: Int
        let repetition: Int
        /// Empty for a leaf.
        let children: [Node]
        /// Its leaves' places.
        let leaves: Range<Int>
    }

    /// Nobody nests deeper, and the levels of pages are kept in bytes.
    private static let maximumDepth = 64

    /// Builds the tree from the footer's list.
    ///
    /// - Throws: `ParquetFault`.
    init(_ elements: [SchemaElement]) throws {
        guard let root = elements.first else { throw ParquetFault.malformed("there is no schema") }
        guard root.type == nil else {
            throw ParquetFault.malformed("the schema begins with a column, expected a group of all columns")
        }
        var next = 1
        let nodes = try (0..<Self.childCount(root, elements.count)).map { _ in
            try node(elements, &next, path: [], definition: 0, repetition: 0)
        }
        guard next == elements.count else {
            throw ParquetFault.malformed("\(elements.count - next) schema elements belong to no column")
        }
        try Self.requireDistinct(nodes, of: "the file")
        columns = try nodes.map { RecordNode.Field(name: $0.name, node: try RecordNode($0, parent: 0)) }
    }

    private static func childCount(_ element: SchemaElement, _ limit: Int) throws -> Int {
        guard (0..<limit).contains(element.childCount) else {
            throw ParquetFault.malformed(
                "\"\(element.name)\" has \(element.childCount) parts, the schema \(limit) elements")
        }
        return element.childCount
    }

    /// Objects have one value for a key.
    private static func requireDistinct(_ nodes: [Node], of parent: String) throws {
        var names: Set<String> = []
        for node in nodes where !names.insert(node.name).inserted {
            throw ParquetFault.malformed("two columns of \(parent) have the name \"\(node.name)\"")
        }
    }

    private mutating func node(
        _ elements: [SchemaElement], _ next: inout Int, path: [String], definition: Int, repetition: Int
    ) throws -> Node {
        guard next < elements.count else {
            throw ParquetFault.malformed(
                "the schema ends after \(elements.count) elements, within a group of columns")
        }
        guard path.count < Self.maximumDepth else {
            throw ParquetFault.malformed(
                "\"\(path[0])\" has more than \(Self.maximumDepth) levels of nesting")
        }
        let element = elements[next]
        next += 1
        let path = path + [element.name]
        guard (0...2).contains(element.repetition) else {
            throw ParquetFault.malformed(
                "\"\(element.name)\" has the unknown repetition \(element.repetition)")
        }
        let isRepeated = element.repetition == 2
        let definition = definition + (element.repetition == 0 ? 0 : 1)
        let repetition = repetition + (isRepeated ? 1 : 0)
        let firstLeaf = leaves.count
        var children: [Node] = []
        if element.type != nil, element.childCount == 0 {
            leaves.append(
                try ParquetLeaf(element, path: path, definition: definition, repetition: repetition))
        } else {
            guard element.type == nil, element.childCount > 0 else {
                throw ParquetFault.malformed(
                    "\"\(element.name)\" has \(element.childCount) parts, expected either parts or a type")
            }
            for _ in 0..<(try Self.childCount(element, elements.count)) {
                children.append(
                    try node(elements, &next, path: path, definition: definition, repetition: repetition))
            }
            try Self.requireDistinct(children, of: "\"\(element.name)\"")
        }
        return Node(
            name: element.name, annotation: element.annotation, isOptional: element.repetition == 1,
            isRepeated: isRepeated, definition: definition, repetition: repetition, children: children,
            leaves: firstLeaf..<leaves.count)
    }
}

extension ParquetLeaf {
    fileprivate init(_ element: SchemaElement, path: [String], definition: Int, repetition: Int) throws {
        func fail(_ reason: String) -> ParquetFault {
            .malformed("\"\(path.joined(separator: "."))\" \(reason)")
        }
        guard let type = element.type.flatMap(PhysicalType.init) else {
            throw fail("has the unknown type \(element.type ?? -1)")
        }
        let width =
            switch type {
            case .boolean, .byteArray: 0
            case .int32, .float: 4
            case .int64, .double: 8
            case .int96: 12
            case .fixedLengthByteArray: element.length
            }
        guard type != .fixedLengthByteArray || (1...Int(Int32.max)).contains(width) else {
            throw fail("has values of \(width) bytes, expected 1 or more")
        }
        guard Self.isPossible(element.annotation, type, width) else {
            throw fail(
                "is stored as \(type.name), which cannot hold \(element.annotation.map { "\($0)" } ?? "it")")
        }
        self.init(
            path: path, type: type, width: width, annotation: element.annotation, definition: definition,
            repetition: repetition)
    }

    /// Whether values of a type can have a meaning.
    private static func isPossible(
        _ annotation: SchemaElement.Annotation?, _ type: PhysicalType, _ width: Int
    ) -> Bool {
        switch annotation {
        case nil, .null, .other: true
        case .text: type == .byteArray || type == .fixedLengthByteArray
        case .list, .map: false
        case .decimal(let scale):
            // 256 bits, which no writer exceeds, have at most 77 digits.
            (0...77).contains(scale)
                && (type == .int32 || type == .int64 || type == .byteArray
                    || (type == .fixedLengthByteArray && width <= DecimalText.maximumByteCount))
        case .date: type == .int32
        case .time(let unit): type == (unit == .milliseconds ? .int32 : .int64)
        case .timestamp: type == .int64
        case .unsigned: type == .int32 || type == .int64
        case .uuid: type == .fixedLengthByteArray && width == 16
        case .float16: type == .fixedLengthByteArray && width == 2
        }
    }
}
