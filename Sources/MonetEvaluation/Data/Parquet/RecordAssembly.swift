import MonetFoundation

/// Puts the rows of a row group together from its columns.
struct RecordAssembly {
    private let path: String
    private let schema: ParquetSchema
    private var columns: [Column]

    /// A column and how far it has been read.
    private struct Column {
        let content: ColumnContent
        let fullDefinition: Int
        /// Places of the next value with nulls, and without them.
        var entry = 0
        var value = 0

        var isAtEnd: Bool { entry >= content.count }

        var definition: Int {
            content.definitions.isEmpty ? fullDefinition : Int(content.definitions[entry])
        }
        var repetition: Int { content.repetitions.isEmpty ? 0 : Int(content.repetitions[entry]) }
    }

    /// - `columns`: one for each of the schema's leaves.
    init(path: String, schema: ParquetSchema, columns: [ColumnContent]) {
        self.path = path
        self.schema = schema
        self.columns = zip(columns, schema.leaves).map {
            Column(content: $0, fullDefinition: $1.definition)
        }
    }

    /// The next row.
    ///
    /// - Throws: `ParquetError.malformedColumn` if the columns do not go together.
    mutating func nextRow() throws -> JSONValue {
        .object(try members(schema.columns, repetition: 0))
    }

    /// Checks that all columns have been read to their end.
    func requireEnd() throws {
        for (place, column) in columns.enumerated() where !column.isAtEnd {
            throw fail(
                place,
                "\(column.content.count - column.entry) of \(column.content.count) values are left after all rows"
            )
        }
    }

    private func fail(_ leaf: Int, _ reason: String) -> ParquetError {
        .malformedColumn(path: path, column: schema.leaves[leaf].name, reason: reason)
    }

    @inline(__always)
    private mutating func members(
        _ fields: [RecordNode.Field], repetition: Int
    ) throws -> [JSONValue.Member] {
        var members: [JSONValue.Member] = []
        members.reserveCapacity(fields.count)
        for field in fields {
            members.append(.init(field.name, try value(field.node, repetition: repetition)))
        }
        return members
    }

    /// The next value of a node. `repetition` is the level that all of its columns must have there: that of the
    /// innermost list of which an element begins, 0 for a new row.
    private mutating func value(_ node: RecordNode, repetition: Int) throws -> JSONValue {
        switch node {
        case .leaf(let leaf, let parent, let full):
            let definition = try step(leaf, repetition: repetition)
            if definition == full {
                // As many values were decoded as there are levels of this height.
                defer { columns[leaf].value += 1 }
                return columns[leaf].content.values[columns[leaf].value]
            }
            guard definition >= parent else { throw disagreement(leaf) }
            return .null
        case .group(let fields, let presence):
            let definition = try peek(presence)
            if definition < presence.definition {
                try skip(presence, definition: definition, repetition: repetition)
                return .null
            }
            return .object(try members(fields, repetition: repetition))
        case .list(let element, let entry, let next, let presence):
            let definition = try peek(presence)
            if definition < entry {
                try skip(presence, definition: definition, repetition: repetition)
                return definition < presence.definition ? .null : .array([])
            }
            var elements = [try value(element, repetition: repetition)]
            let first = presence.leaves.lowerBound
            while !columns[first].isAtEnd, columns[first].repetition >= next {
                elements.append(try value(element, repetition: next))
            }
            return .array(elements)
        }
    }

    /// Goes on in a column by one value, which may be null.
    ///
    /// - Returns: the definition level of what was passed.
    @inline(__always)
    private mutating func step(_ leaf: Int, repetition: Int) throws -> Int {
        guard !columns[leaf].isAtEnd else {
            throw fail(leaf, "the values end before the rows")
        }
        guard columns[leaf].repetition == repetition else {
            throw fail(
                leaf, "a repetition level is \(columns[leaf].repetition), expected \(repetition)")
        }
        defer { columns[leaf].entry += 1 }
        return columns[leaf].definition
    }

    /// The level in the first column of a structure or a list, which says whether it is null or empty.
    private func peek(_ presence: RecordNode.Presence) throws -> Int {
        let leaf = presence.leaves.lowerBound
        guard !columns[leaf].isAtEnd else { throw fail(leaf, "the values end before the rows") }
        let definition = columns[leaf].definition
        guard definition >= presence.parent else { throw disagreement(leaf) }
        return definition
    }

    /// Passes over what is null or empty, on which all columns must agree.
    private mutating func skip(_ presence: RecordNode.Presence, definition: Int, repetition: Int) throws {
        for leaf in presence.leaves {
            guard try step(leaf, repetition: repetition) == definition else { throw disagreement(leaf) }
        }
    }

    private func disagreement(_ leaf: Int) -> ParquetError {
        fail(leaf, "its levels do not agree with those of the other columns of its structure")
    }
}
