import ArgumentParser
import Foundation
import Logging
import MonetModel

/// Masks: experts to remove, weaken or amplify.
struct MaskOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A mask file; :S applies it at strength S: 0 removes its experts (the default), 1 leaves them unchanged, 2 doubles them. May be repeated.",
            valueName: "path[:strength]"))
    var mask: [String] = []

    func validate() throws {
        for argument in mask { _ = try Self.parse(argument) }
    }

    /// The union of all masks, checked against the model; nil if none is given. It adds to the model's own.
    func load(for model: MonetLanguageModel, _ logger: Logger) throws -> UnitMask? {
        let masks = try loadEach(for: model, logger).map(\.mask)
        guard let first = masks.first else { return nil }
        return masks.dropFirst().reduce(first) { $0.union($1) }
    }

    /// Each mask separately, named by its argument; the model's own mask is not included.
    func loadEach(
        for model: MonetLanguageModel, _ logger: Logger
    ) throws -> [(name: String, mask: UnitMask)] {
        try mask.map { argument in
            let (path, strength) = try Self.parse(argument)
            return (argument, try Self.read(path, for: model, logger).mask.applied(strength: strength))
        }
    }

    /// A mask's name among results: its file's, and its strength unless it removes.
    static func shownName(_ argument: String) -> String {
        guard let (path, strength) = try? parse(argument) else { return argument }
        let name = (path.lastPathName as NSString).deletingPathExtension
        return strength == 0 ? name : name + ":" + String(format: "%g", strength)
    }

    /// Reads a mask file; one that was made for another model is refused.
    static func read(_ path: String, for model: MonetLanguageModel, _ logger: Logger) throws -> MaskFile {
        let file = try MaskFile(contentsOfFile: path, configuration: model.configuration)
        if let origin = file.model {
            guard model.descends(from: origin) else {
                throw ModelError.foreignMask(file: path, expected: model.fingerprint, found: origin)
            }
            model.noteOrigin(of: path, origin, logger)
        } else {
            logger.warning("\(path) does not say which model it was made for; used because its shape fits")
        }
        return file
    }

    static func parse(_ argument: String) throws -> (path: String, strength: Float) {
        if FileManager.default.fileExists(atPath: argument) { return (argument, 0) }
        guard let colon = argument.lastIndex(of: ":") else { return (argument, 0) }
        guard let strength = Float(argument[argument.index(after: colon)...]) else {
            if FileManager.default.fileExists(atPath: String(argument[..<colon])) {
                throw ValidationError(
                    "--mask \(argument): '\(argument[argument.index(after: colon)...])' is not a strength from 0 to 1000"
                )
            }
            return (argument, 0)
        }
        guard strength.isFinite, (0...1000).contains(strength) else {
            throw ValidationError("--mask \(argument): expected a strength from 0 to 1000")
        }
        return (String(argument[..<colon]), strength)
    }
}
