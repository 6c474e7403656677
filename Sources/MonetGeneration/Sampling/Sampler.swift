import Foundation
import MonetFoundation

/// How the next token is drawn from the logits.
public struct SamplingSettings: Sendable, Equatable, Codable {
    /// Divides the logits; 0 takes the most likely token.
    public var temperature = 0.8
    /// Keeps the k most likely tokens; 0 keeps all.
    public var topK = 0
    /// Keeps the most likely tokens whose probabilities add up to this share; 1 keeps all.
    public var topP = 0.95
    /// Keeps tokens with at least this share of the most likely token's probability; 0 keeps all.
    public var minP = 0.0
    /// Divides positive and multiplies negative logits of earlier tokens (Keskar et al. 2019); 1 is off.
    public var repetitionPenalty = 1.0
    /// Subtracted from the logits of tokens that were drawn before (OpenAI); 0 is off.
    public var presencePenalty = 0.0
    /// Subtracted from a token's logit for every time that it was drawn before (OpenAI); 0 is off.
    public var frequencyPenalty = 0.0
    /// Added to the logits of some tokens (OpenAI).
    public var logitBias: [Int32: Float] = [:]
    /// Equal seeds draw equal tokens.
    public var seed: UInt64 = 0

    /// Temperature 0.8, top-p 0.95.
    public init() {}

    /// Always the most likely token.
    public static var greedy: SamplingSettings {
        var settings = SamplingSettings()
        settings.temperature = 0
        return settings
    }

    /// Checks the ranges.
    ///
    /// - Throws: `GenerationError.invalidSetting`.
    public func validate() throws {
        func require(_ condition: Bool, _ name: String, _ found: CustomStringConvertible, _ expected: String)
            throws
        {
            if !condition {
                throw GenerationError.invalidSetting(name: name, found: found.description, expected: expected)
            }
        }
        try require(
            temperature >= 0 && temperature <= 100, "temperature", temperature, "a number from 0 to 100")
        try require(topK >= 0, "top-k", topK, "0 (all) or more")
        try require(topP > 0 && topP <= 1, "top-p", topP, "a number above 0, at most 1")
        try require(minP >= 0 && minP <= 1, "min-p", minP, "a number from 0 to 1")
        try require(
            repetitionPenalty > 0 && repetitionPenalty <= 100, "repetition-penalty", repetitionPenalty,
            "a number above 0, at most 100")
        for (name, value) in [
            ("presence-penalty", presencePenalty), ("frequency-penalty", frequencyPenalty),
        ] {
            try require((-2...2).contains(value), name, value, "a number from -2 to 2")
        }
        for (id, bias) in logitBias {
            try require((-100...100).contains(bias), "logit-bias of \(id)", bias, "a number from -100 to 100")
        }
    }
}

/// Draws tokens with penalties, temperature, top-k, top-p and min-p, in Hugging Face's order.
///
///     var sampler = try Sampler(settings)
///     let id = try sampler.next(logits, history: ids)
public struct Sampler: Sendable {
    private let settings: SamplingSettings
    private var generator: SplitMix64

    /// A sampler that starts from the settings' seed.
    ///
    /// - Throws: `GenerationError.invalidSetting`.
    public init(_ settings: SamplingSettings) throws {
        try settings.validate()
        self.settings = settings
        generator = SplitMix64(seed: settings.seed)
    }

    /// The next token.
    ///
    /// - Parameters:
    ///   - logits: one per token of the vocabulary.
    ///   - history: the tokens so far, to which the repetition penalty applies.
    ///   - drawn: those of them that were drawn, to which the penalties of presence and frequency apply.
    /// - Throws: `GenerationError.logitsNotFinite`.
    public mutating func next(
        _ logits: [Float], history: [Int32], drawn: some Sequence<Int32> = EmptyCollection()
    )
        throws -> Int32
    {
        var logits = logits
        for (id, bias) in settings.logitBias where id >= 0 && Int(id) < logits.count {
            logits[Int(id)] += bias
        }
        if settings.presencePenalty != 0 || settings.frequencyPenalty != 0 {
            var counts: [Int32: Int] = [:]
            for id in drawn { counts[id, default: 0] += 1 }
            for (id, count) in counts where id >= 0 && Int(id) < logits.count {
                logits[Int(id)] -= Float(
                    settings.presencePenalty + Double(count) * settings.frequencyPenalty)
            }
        }
        if settings.repetitionPenalty != 1 {
            let penalty = Float(settings.repetitionPenalty)
            for id in Set(history) where id >= 0 && Int(id) < logits.count {
                let value = logits[Int(id)]
                logits[Int(id)] = value > 0 ? value / penalty : value * penalty
            }
        }
        var best = 0
        for index in logits.indices where logits[index] > logits[best] || logits[best].isNaN { best = index }
        guard !logits.isEmpty, logits[best].isFinite, !logits.contains(where: \.isNaN) else {
            throw GenerationError.logitsNotFinite(position: history.count)
        }
        if settings.temperature == 0 { return Int32(best) }
        let candidates = candidates(logits, largest: logits[best])
        let total = candidates.reduce(0) { $0 + $1.weight }
        let target = generator.nextUnit() * total
        var sum = 0.0
        for candidate in candidates {
            sum += candidate.weight
            if target < sum { return candidate.id }
        }
        return candidates.last?.id ?? Int32(best)
    }

    private struct Candidate {
        let id: Int32
        /// exp((logit − largest) / temperature).
        let weight: Double
    }

    /// The tokens that pass the filters, most likely first; without filters all, in vocabulary order.
    private func candidates(_ logits: [Float], largest: Float) -> [Candidate] {
        func weight(_ logit: Float) -> Double { exp(Double(logit - largest) / settings.temperature) }
        let total = logits.reduce(0.0) { $0 + weight($1) }
        let limitsCount = settings.topK > 0 && settings.topK < logits.count
        if !limitsCount && settings.topP == 1 && settings.minP == 0 {
            return logits.indices.map { Candidate(id: Int32($0), weight: weight(logits[$0])) }
        }
        // Usually only tokens near the largest logit are kept: sort those, and more if they do not suffice.
        var reach = 8.0
        while true {
            let lowest = exp(-reach)
            var near: [Candidate] = []
            for (index, logit) in logits.enumerated() {
                let weight = weight(logit)
                if weight >= lowest { near.append(Candidate(id: Int32(index), weight: weight)) }
            }
            let isAll = near.count == logits.count || reach > 700
            let suffices =
                limitsCount
                ? near.count >= settings.topK : near.reduce(0) { $0 + $1.weight } >= settings.topP * total
            if isAll || suffices {
                near.sort { ($1.weight, $0.id) < ($0.weight, $1.id) }
                return filtered(near, total: total, limitsCount: limitsCount)
            }
            reach *= 2
        }
    }

    private func filtered(_ sorted: [Candidate], total: Double, limitsCount: Bool) -> [Candidate] {
        var kept = sorted
        var total = total
        if limitsCount, kept.count > settings.topK {
            // Tokens as likely as the last one are kept too, as in Hugging Face.
            let last = kept[settings.topK - 1].weight
            kept = Array(kept.prefix { $0.weight >= last })
        }
        if limitsCount { total = kept.reduce(0) { $0 + $1.weight } }
        if settings.topP < 1 {
            var sum = 0.0
            var count = 0
            while count < kept.count, count == 0 || sum < settings.topP * total {
                sum += kept[count].weight
                count += 1
            }
            kept = Array(kept.prefix(count))
        }
        let largest = kept.first?.weight ?? 0
        return settings.minP > 0 ? kept.filter { $0.weight >= settings.minP * largest } : kept
    }
}
