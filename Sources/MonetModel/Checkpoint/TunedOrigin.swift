import Foundation
import MonetFoundation

/// Which model a checkpoint was tuned from with routers that stayed as they were. Masks and indices of that model hold
/// for the tuned one as far as the same experts are selected.
public struct TunedOrigin: Sendable, Equatable {
    /// The file in a checkpoint.
    public static let fileName = "tuned_from.json"

    /// `MonetLanguageModel.fingerprint` of the model, and of those that it was tuned from itself, last first. Models
    /// that differ by adapters alone have the same.
    public var fingerprints: [String]
    /// The share of the experts that the model selected that are selected as before; nil if it was not measured.
    public var selectedAsBefore: Double?

    /// Joins both.
    public init(fingerprints: [String], selectedAsBefore: Double? = nil) {
        self.fingerprints = fingerprints
        self.selectedAsBefore = selectedAsBefore
    }

    /// Reads the file of a checkpoint; nil if it has none.
    ///
    /// - Throws: `FileError`, `ModelError.invalidConfiguration`.
    public init?(folder: String) throws {
        let path = folder + "/" + Self.fileName
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        let json = try JSONValue(contentsOfFile: path)
        let list = json["fingerprints"]?.arrayValue?.map(\.stringValue) ?? [nil]
        guard !list.isEmpty, !list.contains(nil) else {
            throw ModelError.invalidConfiguration(
                file: path, key: "fingerprints", found: json["fingerprints"]?.serialized() ?? "absent",
                expected: "a list of fingerprints")
        }
        fingerprints = list.compactMap(\.self)
        selectedAsBefore = json["selected_as_before"]?.doubleValue
    }

    /// Writes the file into a checkpoint.
    public func write(to folder: String) throws {
        let json: JSONValue = [
            "fingerprints": .array(fingerprints.map { .string($0) }),
            "selected_as_before": selectedAsBefore.map { .number($0) } ?? .null,
        ]
        try AtomicFile.write(json.serialized(pretty: true) + "\n", to: folder + "/" + Self.fileName)
    }
}

extension MonetLanguageModel {
    /// Whether masks and indices of a model with this fingerprint are of this one, or of one that it was tuned from.
    public func descends(from fingerprint: String) -> Bool {
        fingerprint == self.fingerprint || tunedFrom?.fingerprints.contains(fingerprint) ?? false
    }
}
