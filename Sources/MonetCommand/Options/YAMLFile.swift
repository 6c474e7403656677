import Foundation
import MonetFoundation
import MonetTraining
import Yams

/// Run files in YAML.
enum YAMLFile {
    /// A YAML document as JSON values.
    ///
    /// - Throws: `FileError`, `TrainingError.invalidSetting` naming the line of a syntax error.
    static func read(_ path: String) throws -> JSONValue {
        let text = try TextFile.read(path, readsStreams: true)
        do {
            guard let node = try compose(yaml: text) else { return .null }
            var nodes = 0
            return try value(node, path: path, depth: 0, &nodes)
        } catch let error as YamlError {
            // Yams quotes the whole line, however long.
            let text = "\(error)".split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
                .joined(separator: " ")
            let found = text.count > 200 ? text.prefix(200) + " …" : text[...]
            throw TrainingError.invalidSetting(
                source: path, key: "", found: String(found), expected: "YAML")
        }
    }

    private static func value(_ node: Node, path: String, depth: Int, _ nodes: inout Int) throws -> JSONValue
    {
        guard depth < 32 else {
            throw TrainingError.invalidSetting(
                source: path, key: "", found: "deep nesting", expected: "a run file")
        }
        // Aliases stand for whole values, and can multiply without end.
        nodes += 1
        guard nodes <= 10_000 else {
            throw TrainingError.invalidSetting(
                source: path, key: "", found: "more than 10,000 values", expected: "a run file")
        }
        switch node {
        case .scalar(let scalar):
            // Quoted text stays text.
            if scalar.style == .doubleQuoted || scalar.style == .singleQuoted {
                return .string(scalar.string)
            }
            if NSNull.construct(from: scalar) != nil { return .null }
            if let bool = Bool.construct(from: scalar) { return .bool(bool) }
            if let integer = Int.construct(from: scalar) { return .integer(integer) }
            if let number = Double.construct(from: scalar) { return .number(number) }
            return .string(scalar.string)
        case .sequence(let sequence):
            return .array(try sequence.map { try value($0, path: path, depth: depth + 1, &nodes) })
        case .mapping(let mapping):
            var members: [JSONValue.Member] = []
            for (key, item) in mapping {
                guard let name = key.string else {
                    throw TrainingError.invalidSetting(
                        source: path, key: "", found: "a key that is not text", expected: "names")
                }
                members.append(.init(name, try value(item, path: path, depth: depth + 1, &nodes)))
            }
            return .object(members)
        case .alias:
            throw TrainingError.invalidSetting(
                source: path, key: "", found: "an alias", expected: "plain values")
        }
    }
}
