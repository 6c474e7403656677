import Foundation
import MonetFoundation
import Yams

/// A task file of lm-evaluation-harness, with the files that it includes: values, and where each stands.
///
/// Scalars are read as PyYAML reads them (YAML 1.1). A function, `!function module.name`, is kept as a text
/// in an object with the one key `!function`: the path of its folder and its name.
struct TaskFile: Sendable {
    /// The key of the object that stands for a function.
    static let functionKey = "!function"

    let path: String
    /// Members of the file, those of included files first; a later one replaces an earlier one in its place.
    private(set) var members: [JSONValue.Member] = []
    /// Lines of members, and of what is inside them: `metric_list[0].metric`.
    private var origins: [String: TaskOrigin] = [:]

    /// Reads a file and what it includes.
    ///
    /// - Throws: `TaskError.malformedFile`, `FileError`.
    init(path: String) throws { try self.init(path: path, including: []) }

    /// Reads all documents of a text.
    static func documents(in text: String, path: String) throws -> [TaskFile] {
        do {
            return try compose_all(yaml: text).map { try TaskFile(node: $0, path: path, including: [path]) }
        } catch let error as YamlError {
            throw malformed(error, path)
        }
    }

    private init(path: String, including: [String]) throws {
        let folded = URL(fileURLWithPath: path).standardizedFileURL.path
        guard !including.contains(folded) else {
            throw TaskError.malformedFile(
                origin: TaskOrigin(path: path, line: 1),
                reason: "it includes itself, through \(including.joined(separator: ", "))")
        }
        guard including.count < 32 else {
            throw TaskError.malformedFile(
                origin: TaskOrigin(path: path, line: 1), reason: "more than 32 files that include each other")
        }
        let text = try TextFile.read(path)
        do {
            guard let node = try compose(yaml: text) else {
                throw TaskError.malformedFile(origin: TaskOrigin(path: path, line: 1), reason: "it is empty")
            }
            try self.init(node: node, path: path, including: including + [folded])
        } catch let error as YamlError {
            throw Self.malformed(error, path)
        }
    }

    private init(node: Node, path: String, including: [String]) throws {
        self.path = path
        guard case .mapping(let mapping) = node else {
            throw TaskError.malformedFile(
                origin: TaskOrigin(path: path, line: node.mark?.line ?? 1),
                reason: "expected keys and values, as a task file has")
        }
        var reader = NodeReader(path: path)
        var own: [JSONValue.Member] = []
        var included: [(file: String, origin: TaskOrigin)] = []
        for (key, value) in mapping {
            let name = try reader.key(key)
            let content = try reader.value(value, at: name)
            let origin = TaskOrigin(path: path, line: key.mark?.line ?? 1)
            reader.origins[name] = origin
            guard name == "include" else {
                own.append(.init(name, content))
                continue
            }
            let files =
                content.stringValue.map { [$0] } ?? content.arrayValue?.compactMap(\.stringValue) ?? []
            guard !files.isEmpty else {
                throw TaskError.invalidValue(
                    origin: origin, key: name, found: content.kind, expected: "a file or a list of files")
            }
            included = files.map { ($0, origin) }
        }
        let folder = (path as NSString).deletingLastPathComponent
        for (file, origin) in included {
            let target = file.hasPrefix("/") || folder.isEmpty ? file : folder + "/" + file
            guard FileManager.default.fileExists(atPath: target) else {
                throw TaskError.invalidValue(
                    origin: origin, key: "include", found: file, expected: "a file in \(folder)")
            }
            let other = try TaskFile(path: target, including: including)
            // Of an included group, the members are not inherited.
            for member in other.members where member.key != "task_list" { set(member.key, member.value) }
            origins.merge(other.origins) { $1 }
        }
        for member in own {
            for key in origins.keys where key.hasPrefix(member.key + "[") || key.hasPrefix(member.key + ".") {
                origins[key] = nil
            }
            set(member.key, member.value)
        }
        origins.merge(reader.origins) { $1 }
    }

    private static func malformed(_ error: YamlError, _ path: String) -> TaskError {
        // Yams quotes the whole line, however long.
        let lines = "\(error)".split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        let text = lines.joined(separator: " ")
        var line = 1
        switch error {
        case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _):
            line = mark.line
        default: break
        }
        return .malformedFile(
            origin: TaskOrigin(path: path, line: line), reason: "not YAML: \(text.prefix(200))")
    }

    /// A task or a group that stands inside a group, at a key of its file.
    init(inside file: TaskFile, at key: String, _ members: [JSONValue.Member]) {
        path = file.path
        self.members = members
        for member in members {
            origins[member.key] = file.origin(of: key + "." + member.key)
        }
    }

    /// The value of a key.
    subscript(key: String) -> JSONValue? { members.first { $0.key == key }?.value }

    /// Replaces a value, or adds it at the end.
    mutating func set(_ key: String, _ value: JSONValue, from origin: TaskOrigin? = nil) {
        if let place = members.firstIndex(where: { $0.key == key }) {
            members[place] = .init(key, value)
        } else {
            members.append(.init(key, value))
        }
        if let origin { origins[key] = origin }
    }

    /// Where a key, or what is inside it, stands; the innermost that is known.
    func origin(of key: String) -> TaskOrigin {
        var key = key
        while true {
            if let origin = origins[key] { return origin }
            guard let end = key.lastIndex(where: { $0 == "." || $0 == "[" }) else { break }
            key = String(key[..<end])
        }
        return TaskOrigin(path: path, line: 1)
    }
}

/// Reads nodes of YAML as PyYAML does.
private struct NodeReader {
    let path: String
    var origins: [String: TaskOrigin] = [:]
    private var count = 0

    init(path: String) { self.path = path }

    private func fail(_ node: Node, _ reason: String) -> TaskError {
        .malformedFile(origin: TaskOrigin(path: path, line: node.mark?.line ?? 1), reason: reason)
    }

    func key(_ node: Node) throws -> String {
        guard case .scalar(let scalar) = node else { throw fail(node, "a key that is not a scalar") }
        return scalar.string
    }

    mutating func value(_ node: Node, at place: String, depth: Int = 0) throws -> JSONValue {
        guard depth < 32 else { throw fail(node, "values inside more than 32 others") }
        // Aliases stand for whole values, and can multiply without end.
        count += 1
        guard count <= 100_000 else { throw fail(node, "more than 100,000 values") }
        if depth > 0, let line = node.mark?.line { origins[place] = TaskOrigin(path: path, line: line) }
        switch node {
        case .scalar(let scalar):
            let tag = scalar.tag.description
            if tag == TaskFile.functionKey {
                let folder = (path as NSString).deletingLastPathComponent
                return .object([
                    .init(
                        TaskFile.functionKey, .string((folder.isEmpty ? "." : folder) + "/" + scalar.string))
                ])
            }
            guard !tag.hasPrefix("!") else { throw fail(node, "the tag '\(tag)' is unknown") }
            return scalar.style == .plain || scalar.style == .any
                ? PlainScalar.value(scalar.string) : .string(scalar.string)
        case .sequence(let sequence):
            var values: [JSONValue] = []
            for (index, item) in sequence.enumerated() {
                values.append(try value(item, at: "\(place)[\(index)]", depth: depth + 1))
            }
            return .array(values)
        case .mapping(let mapping):
            var members: [JSONValue.Member] = []
            for (key, item) in mapping {
                let name = try self.key(key)
                members.append(.init(name, try value(item, at: "\(place).\(name)", depth: depth + 1)))
            }
            return .object(members)
        case .alias: throw fail(node, "an alias without its anchor")
        }
    }
}

/// What a plain scalar of YAML 1.1 means to PyYAML: unlike in YAML 1.2, `yes` is true and `1e-4` is a text.
private enum PlainScalar {
    static func value(_ text: String) -> JSONValue {
        switch text {
        case "", "~", "null", "Null", "NULL": return .null
        case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON": return .bool(true)
        case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF": return .bool(false)
        default:
            return integer(text).map { .integer($0) } ?? number(text).map { .number($0) } ?? .string(text)
        }
    }

    private static func integer(_ text: String) -> Int? {
        let isNegative = text.hasPrefix("-")
        let digits = (isNegative || text.hasPrefix("+") ? text.dropFirst() : text[...])
        guard let first = digits.first, first.isASCII, first.isNumber else { return nil }
        let plain = digits.replacing("_", with: "")
        func made(_ text: Substring, _ radix: Int) -> Int? {
            guard !text.hasPrefix("-"), !text.hasPrefix("+") else { return nil }
            return Int((isNegative ? "-" : "") + text, radix: radix)
        }
        if plain.hasPrefix("0b") { return made(plain.dropFirst(2)[...], 2) }
        if plain.hasPrefix("0x") { return made(plain.dropFirst(2)[...], 16) }
        if plain.count > 1, plain.hasPrefix("0") { return made(plain.dropFirst()[...], 8) }
        return made(plain[...], 10)
    }

    private static func number(_ text: String) -> Double? {
        switch text.lowercased() {
        case ".inf", "+.inf": return .infinity
        case "-.inf": return -.infinity
        case ".nan": return .nan
        default: break
        }
        // A point is needed, and a sign in the exponent.
        guard text.contains("."), text.contains(where: \.isNumber),
            text.allSatisfy({ "0123456789._+-eE".contains($0) })
        else { return nil }
        if let exponent = text.lastIndex(where: { $0 == "e" || $0 == "E" }) {
            guard let sign = text[text.index(after: exponent)...].first, sign == "+" || sign == "-" else {
                return nil
            }
        }
        return Double(text.replacing("_", with: ""))
    }
}
