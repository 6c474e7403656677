import Foundation
import MonetCompute
import MonetFoundation

/// A mask file: a mask with its origin. The format is safetensors with int64 tensors `removed.{g}` and
/// `scaled.{g}.index`, float32 tensors `scaled.{g}.strength`, and metadata.
public struct MaskFile: Sendable, Equatable {
    /// The units and their strengths.
    public var mask: UnitMask
    /// `MonetLanguageModel.fingerprint` of the model it was made for; nil in files without metadata.
    public var model: String?
    /// How it was made: the command's name and settings.
    public var recipe: JSONValue

    /// Joins a mask and its origin.
    public init(mask: UnitMask, model: String?, recipe: JSONValue) {
        self.mask = mask
        self.model = model
        self.recipe = recipe
    }

    private static let format = "monet-mask"
    private static let version = "1"

    /// Writes the file, completely or not at all.
    public func write(to path: String) throws {
        var tensors: [(name: String, tensor: Tensor)] = []
        var counts: [JSONValue.Member] = []
        for group in mask.groups {
            let entries = mask.entries(group: group)
            let removed = entries.filter { $0.strength == 0 }.map(\.index)
            let scaled = entries.filter { $0.strength != 0 }
            if !removed.isEmpty { tensors.append(("removed.\(group)", Tensor(int64: removed))) }
            if !scaled.isEmpty {
                tensors.append(("scaled.\(group).index", Tensor(int64: scaled.map(\.index))))
                tensors.append(
                    ("scaled.\(group).strength", Tensor(scaled.map(\.strength), shape: [scaled.count])))
            }
            if !entries.isEmpty { counts.append(.init("\(group)", .integer(entries.count))) }
        }
        // If units are pairs, files state the experts per side, as in the first version of the format.
        let side = Int(Double(mask.unitsPerGroup).squareRoot().rounded())
        let isPair = side * side == mask.unitsPerGroup
        var metadata = [
            "format": Self.format, "version": Self.version,
            isPair ? "experts" : "units": "\(isPair ? side : mask.unitsPerGroup)",
            "recipe": recipe.serialized(), "counts": JSONValue.object(counts).serialized(),
        ]
        metadata["model"] = model
        try SafetensorsWriter.write(tensors, metadata: metadata, to: path)
    }

    /// Reads a file for a model of `configuration`.
    ///
    /// - Throws: `ModelError` naming the file and what does not fit.
    public init(contentsOfFile path: String, configuration: MonetConfiguration) throws {
        let units = configuration.feedForward.units(layerCount: configuration.layerCount)
        let file = try SafetensorsFile(path: path)
        let metadata = file.metadata
        if let format = metadata["format"], format == Self.format {
            guard metadata["version"] == Self.version else {
                throw ModelError.invalidInput(
                    reason:
                        "\(path): a mask of version \(metadata["version"] ?? "none"), expected \(Self.version)"
                )
            }
            let side = metadata["experts"].flatMap { Int($0) }
            let total =
                metadata["units"].flatMap { Int($0) }
                ?? side.map { $0.multipliedReportingOverflow(by: $0).partialValue }
            if let total, total != units.unitsPerGroup {
                throw ModelError.invalidInput(
                    reason: "\(path): a mask for "
                        + (side.map { "\($0) experts a side" } ?? "\(total) units a group")
                        + ", the model has "
                        + (units.perSide.map { "\($0)" } ?? "\(units.unitsPerGroup) \(units.kind.rawValue)"))
            }
            model = metadata["model"]
            recipe = try metadata["recipe"].map { try JSONValue(parsing: $0, source: path) } ?? .null
        } else {
            model = nil
            recipe = .null
        }
        mask = UnitMask(units)
        for entry in file.entries {
            try mask.read(entry.name, of: file, groups: units.groups)
        }
    }
}

extension UnitMask {
    /// Reads one of a mask file's tensors.
    fileprivate mutating func read(_ name: String, of file: SafetensorsFile, groups: Int) throws {
        let parts = name.split(separator: ".").map(String.init)
        guard parts.count >= 2, let group = Int(parts[1]), (0..<groups).contains(group) else {
            throw ModelError.malformedSafetensors(
                file: file.path, tensor: name,
                reason:
                    "expected removed.{g}, scaled.{g}.index or scaled.{g}.strength with a group below \(groups)"
            )
        }
        switch (parts[0], parts.count, parts.last) {
        case ("removed", 2, _): remove(try indices(name, of: file), group: group)
        case ("scaled", 3, "index"):
            let list = try indices(name, of: file)
            let strengthName = "scaled.\(group).strength"
            let strength = try file.tensor(strengthName)
            guard strength.dtype == .float32, strength.shape == [list.count] else {
                throw ModelError.wrongShape(
                    file: file.path, tensor: strengthName, expected: [list.count], found: strength.shape)
            }
            let values = strength.floats()
            if let bad = values.first(where: { !$0.isFinite || $0 < 0 }) {
                throw ModelError.invalidInput(
                    reason:
                        "\(file.path): tensor \"\(strengthName)\" holds \(bad), expected strengths of 0 or more"
                )
            }
            set(zip(list, values).map { (index: $0, strength: $1) }, group: group)
        case ("scaled", 3, "strength"):
            guard file.contains("scaled.\(group).index") else {
                throw ModelError.missingTensor(file: file.path, tensor: "scaled.\(group).index")
            }
        default: throw ModelError.unexpectedTensor(file: file.path, tensor: name)
        }
    }

    private func indices(_ name: String, of file: SafetensorsFile) throws -> [Int] {
        let tensor = try file.tensor(name)
        guard tensor.dtype == .int64, tensor.shape.count == 1 else {
            throw ModelError.wrongDType(
                file: file.path, tensor: name, expected: "a list of I64",
                found: "\(tensor.dtype.rawValue) \(tensor.shape)")
        }
        let values = tensor.integers()
        if let bad = values.first(where: { $0 < 0 || $0 >= unitsPerGroup }) {
            throw ModelError.invalidInput(
                reason:
                    "\(file.path): tensor \"\(name)\" names expert \(bad), expected 0 to \(unitsPerGroup - 1)"
            )
        }
        return values
    }
}
