import Foundation
import MonetFoundation

/// The scorer that ships with the package: a linear model of the single words of a text.
///
///     let scorer = try WordToxicityScorer.shipped()
///     let scores = try scorer.scores(of: ["The shark is a large fish."])
///
/// Its weights are those of a support vector machine over TF-IDF that the authors of alt-profanity-check trained on
/// comments labelled by people. It knows words and not what is said with them.
public struct WordToxicityScorer: ToxicityScorer, Sendable {
    private let weights: [String: (weight: Float, rarity: Float)]
    private let stopWords: Set<String>
    private let rarityOfOthers: Float
    private let slope: Double
    private let intercept: Double
    private let source: String
    private let measuredOn: String
    /// Area under the ROC curve on texts that it was not trained on: the chance that an offensive one scores above
    /// another.
    public let measuredAUC: Double

    private static let format = "monet-toxicity-words"

    /// The word list that comes with the package.
    public static func shipped() throws -> WordToxicityScorer {
        let origin = "the word list that comes with the package"
        return try PackageResources.toxicity_words_json.withUnsafeBytes {
            try WordToxicityScorer(JSONValue(parsing: $0, source: origin), path: origin)
        }
    }

    init(_ json: JSONValue, path: String) throws {
        func malformed(_ reason: String) -> EvaluationError {
            .malformedClassifier(path: path, reason: reason)
        }
        func text(_ key: String) throws -> String {
            guard let value = json[key]?.stringValue else { throw malformed("\"\(key)\" is not a text") }
            return value
        }
        func number(_ key: String) throws -> Double {
            guard let value = json[key]?.doubleValue, value.isFinite, abs(value) < 1e9 else {
                throw malformed("\"\(key)\" is \(json[key]?.serialized() ?? "absent"), expected a number")
            }
            return value
        }
        func bytes(_ key: String) throws -> [UInt8] {
            guard let data = Data(base64Encoded: try text(key)) else {
                throw malformed("\"\(key)\" is not a text of base64")
            }
            return Array(data)
        }
        guard try text("format") == Self.format, json["version"]?.intValue == 1 else {
            throw malformed("it is not \"\(Self.format)\", version 1")
        }
        let words = String(decoding: try bytes("words"), as: UTF8.self).split(separator: " ").map(String.init)
        let (stored, rarities) = (try bytes("weights"), try bytes("rarity"))
        guard stored.count == words.count, rarities.count == words.count else {
            throw malformed(
                "it has \(words.count) words, \(stored.count) weights and \(rarities.count) rarities")
        }
        let (weightScale, rarityScale) = (
            Float(try number("weight_scale")), Float(try number("rarity_scale"))
        )
        weights = Dictionary(
            words.indices.map { place in
                (
                    words[place],
                    (
                        weight: Float(Int8(bitPattern: stored[place])) * weightScale,
                        rarity: Float(rarities[place]) * rarityScale
                    )
                )
            }, uniquingKeysWith: { first, _ in first })
        stopWords = Set(try text("stop_words").split(separator: " ").map(String.init))
        rarityOfOthers = Float(try number("rarity_of_others"))
        (slope, intercept) = (try number("slope"), try number("intercept"))
        (source, measuredOn) = (try text("source"), try text("measured_on"))
        measuredAUC = try number("measured_auc")
    }

    public var summary: String {
        "offline word list (\(source)); it weighs single words: what is said in plain ones escapes it, and some "
            + "names of groups of people count as rude; its AUC on \(measuredOn), is \(String(format: "%.3f", measuredAUC))"
    }

    public var json: JSONValue {
        [
            "kind": "offline words", "source": .string(source), "measured_on": .string(measuredOn),
            "measured_auc": .number(measuredAUC),
        ]
    }

    /// One text's score; 0 for a text without words.
    public func score(of text: String) -> Double {
        if text.hasNoWord { return 0 }
        return 1 / (1 + exp(-(slope * Double(margin(of: text)) + intercept)))
    }

    public func scores(of texts: [String]) throws -> [Double] { texts.map(score) }

    /// The support vector machine's margin: weights of words by TF-IDF, of norm 1.
    private func margin(of text: String) -> Float {
        var counts: [String: Int] = [:]
        for word in Self.words(text) where !stopWords.contains(word) { counts[word, default: 0] += 1 }
        var (sum, squares): (Float, Float) = (0, 0)
        for (word, count) in counts {
            let known = weights[word]
            let value = Float(count) * (known?.rarity ?? rarityOfOthers)
            sum += value * (known?.weight ?? 0)
            squares += value * value
        }
        return squares > 0 ? sum / squares.squareRoot() : 0
    }

    /// Runs of two or more letters, digits and underscores, in lower case, as scikit-learn splits texts.
    private static func words(_ text: String) -> [String] {
        text.lowercased().unicodeScalars.split {
            !($0 == "_" || $0.properties.isAlphabetic || $0.properties.numericType != nil)
        }
        .filter { $0.count > 1 }.map { String($0) }
    }
}
