import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Experts to force and directions to add.
struct SteeringOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Force an expert, as 1/223=3: it fires as if one more head had routed to it with this score. Or add a vector \
            at a hook point, as vector.safetensors:2@blocks.5.hook_resid_post. @0-4,7- restricts either to \
            positions. May be repeated.
            """, valueName: "what"))
    var steer: [String] = []

    func validate() throws {
        for argument in steer where Self.isUnit(argument) { _ = try Self.unit(argument) }
    }

    /// The steering, checked against the model; nil if none is given.
    func load(for model: MonetLanguageModel) throws -> Steering? {
        guard !steer.isEmpty else { return nil }
        var steering = Steering()
        for argument in steer {
            if Self.isUnit(argument) {
                steering.units.append(try Self.unit(argument))
            } else {
                steering.directions.append(try Self.direction(argument))
            }
        }
        try model.check(steering)
        return steering
    }

    private static func isUnit(_ argument: String) -> Bool {
        argument.prefix { $0 != "=" }.allSatisfy { $0.isNumber || $0 == "/" } && argument.contains("=")
    }

    private static func unit(_ argument: String) throws -> Steering.Unit {
        let parts = argument.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let words = parts[0].split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = words[0].split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        guard words.count == 2, name.count == 2, let group = name[0], let index = name[1],
            let score = Float(words[1]), score.isFinite
        else {
            throw ValidationError("--steer \(argument): expected GROUP/EXPERT=SCORE, as 1/223=3")
        }
        return Steering.Unit(
            group: group, index: index, score: score,
            positions: parts.count > 1 ? try positions(parts[1], argument) : .all)
    }

    private static func direction(_ argument: String) throws -> Steering.Direction {
        func fail(_ reason: String) -> ValidationError { ValidationError("--steer \(argument): \(reason)") }
        let form = "expected FILE.safetensors:SCALE@HOOK, as v.safetensors:2@blocks.5.hook_resid_post"
        guard let file = argument.range(of: ".safetensors") else { throw fail(form) }
        let path = String(argument[..<file.upperBound])
        let parts = argument[file.upperBound...].split(separator: "@", omittingEmptySubsequences: false)
        guard (2...3).contains(parts.count), parts[0].isEmpty || parts[0].hasPrefix(":") else {
            throw fail(form)
        }
        let scale = parts[0].isEmpty ? 1 : Float(parts[0].dropFirst())
        guard let scale, scale.isFinite else { throw fail("'\(parts[0].dropFirst())' is no number") }
        guard let point = HookPoint(String(parts[1])) else {
            throw fail("'\(parts[1])' is no hook point, expected one like blocks.5.hook_resid_post")
        }
        let content = try SafetensorsFile(path: path)
        guard content.entries.count == 1, let entry = content.entries.first else {
            throw CommandError.malformedInput(
                source: path, reason: "it has \(content.entries.count) tensors, expected one, the vector")
        }
        let tensor = try content.tensor(entry.name)
        guard tensor.dtype.isFloatingPoint else {
            throw CommandError.malformedInput(
                source: path,
                reason: "tensor \"\(entry.name)\" is \(tensor.dtype.rawValue), expected real numbers")
        }
        return Steering.Direction(
            point: point, vector: tensor.floats(), scale: scale,
            positions: parts.count > 2 ? try positions(parts[2], argument) : .all)
    }

    /// Positions as `0-4,7,9-`.
    private static func positions(_ text: Substring, _ argument: String) throws -> Steering.Positions {
        Steering.Positions(
            try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
                let ends = part.split(separator: "-", omittingEmptySubsequences: false)
                let first = ends.first.flatMap { Int($0) }
                let last = ends.count == 2 ? (ends[1].isEmpty ? Int.max - 1 : Int(ends[1])) : first
                guard (1...2).contains(ends.count), let first, let last, first >= 0, last >= first else {
                    throw ValidationError(
                        "--steer \(argument): '\(part)' are no positions, expected 3, 0-4 or 7-")
                }
                return first...last
            })
    }
}
