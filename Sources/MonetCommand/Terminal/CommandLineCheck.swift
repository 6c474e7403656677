import ArgumentParser
import Foundation
import MonetFoundation

/// What the argument parser does not say clearly: unknown options and misspelt commands by name, with the nearest
/// that exists, and values that begin with a minus sign.
struct CommandLineCheck {
    private let root: Level

    /// A command with its options and subcommands.
    private struct Level {
        let name: String
        let options: [Option]
        let subcommands: [Level]

        struct Option {
            let names: [String]
            let takesValue: Bool
        }

        init(_ json: JSONValue) {
            name = json["commandName"]?.stringValue ?? ""
            options = (json["arguments"]?.arrayValue ?? []).map { argument in
                Option(
                    names: (argument["names"]?.arrayValue ?? []).compactMap { name in
                        let text = name["name"]?.stringValue
                        return text.map { (name["kind"] == "short" ? "-" : "--") + $0 }
                    }, takesValue: argument["kind"] == "option")
            }
            subcommands = (json["subcommands"]?.arrayValue ?? []).map { Level($0) }
        }

        func option(_ name: String) -> Option? { options.first { $0.names.contains(name) } }
    }

    init() throws {
        let text = MonetCommand._dumpHelp()
        root = Level(try JSONValue(parsing: text, source: "help")["command"] ?? .null)
    }

    /// The command that arguments name, and the place of the first argument after its name.
    private func command(of arguments: [String]) -> (level: Level, next: Int) {
        var (level, next) = (root, 0)
        for (place, argument) in arguments.enumerated() {
            guard !argument.hasPrefix("-"),
                let found = level.subcommands.first(where: { $0.name == argument })
            else { break }
            (level, next) = (found, place + 1)
        }
        return (level, next)
    }

    /// The arguments with negative numbers joined to their options, which otherwise look like options themselves.
    func joiningNegativeValues(_ arguments: [String]) -> [String] {
        let level = command(of: arguments).level
        var result: [String] = []
        for argument in arguments {
            if argument.count > 1, argument.hasPrefix("-"), Double(argument) != nil,
                let last = result.last, let option = level.option(last), option.takesValue,
                let long = option.names.first(where: { $0.hasPrefix("--") })
            {
                result[result.count - 1] = long + "=" + argument
            } else {
                result.append(argument)
            }
        }
        return result
    }

    /// What is wrong with the first command or option that does not exist; nil if all do.
    func complaint(about arguments: [String]) -> String? {
        let (level, next) = command(of: arguments)
        if !level.subcommands.isEmpty, next < arguments.count, !arguments[next].hasPrefix("-") {
            let names = level.subcommands.map(\.name)
            return "unknown command '\(arguments[next])'" + suggestion(arguments[next], names)
        }
        let known = level.options.flatMap(\.names) + ["--help", "-h", "--version"]
        var isValue = false
        for argument in arguments[next...] {
            defer { isValue = level.option(argument)?.takesValue ?? false }
            if argument == "--" { return nil }
            if isValue || !argument.hasPrefix("--") { continue }
            let name = String(argument.prefix { $0 != "=" })
            if !known.contains(name) {
                return "unknown option '\(name)'" + suggestion(name, known.filter { $0.hasPrefix("--") })
            }
        }
        return nil
    }

    private func suggestion(_ word: String, _ known: [String]) -> String {
        // A word that contains another is near it, as --max-tokens is to --max-new-tokens.
        let parts = Set(word.split(separator: "-"))
        func isContained(_ name: String) -> Bool {
            parts.count > 1 && parts.isSubset(of: Set(name.split(separator: "-")))
        }
        let nearest = known.map { (name: $0, distance: isContained($0) ? 1 : Self.distance(word, $0)) }
            .min { $0.distance < $1.distance }
        guard let nearest, nearest.distance <= max(2, word.count / 3) else { return "" }
        return "; did you mean '\(nearest.name)'?"
    }

    /// The number of letters to change, insert or remove.
    private static func distance(_ a: String, _ b: String) -> Int {
        let (a, b) = (Array(a), Array(b))
        var row = Array(0...b.count)
        for (i, letter) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, other) in b.enumerated() {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, diagonal + (letter == other ? 0 : 1))
                diagonal = above
            }
        }
        return row[b.count]
    }
}
