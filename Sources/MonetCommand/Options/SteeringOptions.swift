import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

/// Experts to force, directions to add, and values to replace.
struct SteeringOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Force an expert, as 1/223=3: it fires as if one more head had routed to it with this score. Or add a vector \
            at a hook point, as vector.safetensors:2@blocks.5.hook_resid_post. @0-4,7- restricts either to \
            positions. May be repeated.
            """, valueName: "what"))
    var steer: [String] = []

    @Option(
        help: ArgumentHelp(
            """
            Replace the values at a hook point, as blocks.3.hook_attn_out=zero; =mean and =prompt put the mean over \
            --ablate-from or its values at the same positions there, =FILE.safetensors a vector. blocks.0.attn.hook_z#3 means \
            head 3 alone, @0-4,7- positions. May be repeated.
            """, valueName: "what"))
    var ablate: [String] = []
    @Option(
        help: ArgumentHelp(
            "The text, or @FILE with it, from which --ablate takes mean or prompt.", valueName: "text"))
    var ablateFrom: String?

    func validate() throws {
        for argument in steer where Self.isUnit(argument) { _ = try Self.unit(argument) }
        if ablateFrom != nil, ablate.isEmpty { throw ValidationError("--ablate-from is for --ablate.") }
        for argument in ablate where try Self.ablation(argument).needsReference && ablateFrom == nil {
            throw ValidationError("--ablate \(argument) needs --ablate-from.")
        }
    }

    /// The steering, checked against the model; nil if none is given.
    ///
    /// - `tokenizer`: reads `--ablate-from`.
    func load(for model: MonetLanguageModel, _ tokenizer: Tokenizer?, on backend: CPUBackend) throws
        -> Steering?
    {
        guard !steer.isEmpty || !ablate.isEmpty else { return nil }
        var steering = Steering()
        for argument in steer {
            if Self.isUnit(argument) {
                steering.units.append(try Self.unit(argument))
            } else {
                steering.directions.append(try Self.direction(argument))
            }
        }
        let ablations = try ablate.map { try Self.ablation($0) }
        let points = ablations.filter(\.needsReference).map(\.point)
        try model.check(points)
        let values = points.isEmpty ? [:] : try referenceValues(points, model, tokenizer, backend)
        for ablation in ablations {
            let own = values[ablation.point] ?? []
            let content: Steering.Replacement.Content
            switch ablation.content {
            case "zero": content = .zero
            case "mean":
                guard ablation.point.kind != .pattern else {
                    throw CommandError.malformedInput(
                        source: "--ablate",
                        reason: "\(ablation.point) has no mean: its width is that of the text")
                }
                content = .row(
                    (0..<(own.first?.count ?? 0)).map { column in
                        Float(own.reduce(0.0) { $0 + Double($1[column]) } / Double(own.count))
                    })
            case "prompt": content = .rows(own)
            default: content = .row(try Steering.Direction.vector(contentsOfFile: ablation.content))
            }
            steering.replacements.append(
                .init(
                    point: ablation.point, head: ablation.head, content: content,
                    positions: ablation.positions))
        }
        try model.check(steering)
        return steering
    }

    /// The values of the reference's tokens at some hook points.
    private func referenceValues(
        _ points: [HookPoint], _ model: MonetLanguageModel, _ tokenizer: Tokenizer?, _ backend: CPUBackend
    ) throws -> [HookPoint: [[Float]]] {
        guard let tokenizer else {
            throw CommandError.malformedInput(
                source: "--ablate-from", reason: "the model has no tokenizer to read it")
        }
        let reference = ablateFrom ?? ""
        let text =
            reference.hasPrefix("@")
            ? try TextFile.read(String(reference.dropFirst()), readsStreams: true) : reference
        let ids = try tokenizer.encode(text, addBegin: tokenizer.addsBegin)
        guard ids.count <= model.configuration.contextLength else {
            throw CommandError.malformedInput(
                source: "--ablate-from",
                reason:
                    "\(ids.count) tokens, expected at most the context of \(model.configuration.contextLength)"
            )
        }
        guard !text.isEmpty, !ids.isEmpty else {
            throw CommandError.malformedInput(source: "--ablate-from", reason: "it is empty, expected a text")
        }
        var input = ForwardInput([ids])
        input.hooks.observed = Set(points)
        return try model.forward(input, on: backend).observations.mapValues { value in
            let numbers = value.value.floats()
            let width = numbers.count / ids.count
            return ids.indices.map { Array(numbers[($0 * width)..<(($0 + 1) * width)]) }
        }
    }

    /// What an argument of `--ablate` says.
    private struct Ablation {
        let point: HookPoint
        let head: Int?
        let positions: Steering.Positions
        /// `zero`, `mean`, `prompt`, or a file.
        let content: String

        var needsReference: Bool { content == "mean" || content == "prompt" }
    }

    private static func ablation(_ argument: String) throws -> Ablation {
        func fail(_ reason: String) -> ValidationError { ValidationError("--ablate \(argument): \(reason)") }
        let sides = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard sides.count == 2,
            ["zero", "mean", "prompt"].contains(sides[1]) || sides[1].hasSuffix(".safetensors")
        else {
            throw fail("expected HOOK=zero, =mean, =prompt or =FILE.safetensors")
        }
        let parts = sides[0].split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let names = parts[0].split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
        guard let point = HookPoint(String(names[0])) else {
            throw fail("'\(names[0])' is no hook point, expected one like blocks.3.hook_attn_out")
        }
        let head = names.count > 1 ? Int(names[1]) : nil
        if names.count > 1, head == nil { throw fail("'\(names[1])' is no head, expected a number") }
        return Ablation(
            point: point, head: head, positions: parts.count > 1 ? try positions(parts[1], argument) : .all,
            content: String(sides[1]))
    }

    private static func isUnit(_ argument: String) -> Bool {
        argument.prefix { $0 != "=" }.allSatisfy { $0.isNumber || $0 == "/" } && argument.contains("=")
    }

    private static func unit(_ argument: String) throws -> Steering.Unit {
        let parts = argument.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let words = parts[0].split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard words.count == 2, let (group, index) = UnitLayout.numbers(of: words[0]),
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
        return Steering.Direction(
            point: point, vector: try Steering.Direction.vector(contentsOfFile: path), scale: scale,
            positions: parts.count > 2 ? try positions(parts[2], argument) : .all)
    }

    private static func positions(_ text: Substring, _ argument: String) throws -> Steering.Positions {
        do {
            return try Steering.Positions(parsing: text)
        } catch {
            throw ValidationError("\(argument): \(error)")
        }
    }
}
