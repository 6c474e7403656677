import Foundation
import MonetFoundation

/// Weights as bytes with one scale.
struct StoredWeights {
    let bytes: [UInt8]
    let scale: Float
    var weights: [Float] { bytes.map { Float(Int8(bitPattern: $0)) * scale } }

    init(bytes: [UInt8], scale: Float) {
        self.bytes = bytes
        self.scale = scale
    }

    init(_ weights: [Float]) {
        let largest = weights.map(abs).max() ?? 0
        scale = largest > 0 ? largest / 127 : 1
        bytes = weights.map { [scale] in UInt8(bitPattern: Int8(($0 / scale).rounded())) }
    }
}

extension ToxicityClassifier {
    private static let format = "monet-toxicity-classifier"

    /// Reads a classifier's file.
    ///
    /// - Throws: `FileError`, `EvaluationError.malformedClassifier`.
    public init(contentsOfFile path: String) throws {
        try self.init(JSONValue(contentsOfFile: path, readsStreams: true), path: path)
    }

    /// Writes the classifier as JSON.
    public func write(to path: String) throws {
        let stored = StoredWeights(weights)
        let value: JSONValue = [
            "format": .string(Self.format), "version": 1, "source": .string(source),
            "training_texts": .integer(trainingCount), "held_out_texts": .integer(heldOutCount),
            "held_out_auc": .number(heldOutAUC), "bias": .number(Double(bias)),
            "scale": .number(Double(stored.scale)),
            "weights": .string(Data(stored.bytes).base64EncodedString()),
        ]
        try AtomicFile.write(value.serialized(pretty: true) + "\n", to: path)
    }

    private init(_ json: JSONValue, path: String) throws {
        func malformed(_ reason: String) -> EvaluationError {
            .malformedClassifier(path: path, reason: reason)
        }
        guard json["format"]?.stringValue == Self.format else {
            throw malformed("\"format\" is not \"\(Self.format)\"")
        }
        guard json["version"]?.intValue == 1 else {
            throw malformed("\"version\" is \(json["version"]?.serialized() ?? "absent"), expected 1")
        }
        func number(_ key: String) throws -> Double {
            guard let value = json[key]?.doubleValue, value.isFinite, abs(value) < 1e9 else {
                throw malformed("\"\(key)\" is \(json[key]?.serialized() ?? "absent"), expected a number")
            }
            return value
        }
        guard let text = json["weights"]?.stringValue, let bytes = Data(base64Encoded: text), !bytes.isEmpty
        else { throw malformed("\"weights\" is not a text of base64") }
        self.init(
            weights: StoredWeights(bytes: Array(bytes), scale: Float(try number("scale"))).weights,
            bias: Float(try number("bias")), source: json["source"]?.stringValue ?? "unknown",
            trainingCount: Int(try number("training_texts")), heldOutCount: Int(try number("held_out_texts")),
            heldOutAUC: try number("held_out_auc"))
    }
}
