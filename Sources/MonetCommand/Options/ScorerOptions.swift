import ArgumentParser
import Foundation
import MonetEvaluation

/// The toxicity scorer to use.
struct ScorerOptions: ParsableArguments {
    enum Kind: String, ExpressibleByArgument, CaseIterable {
        case offline, http
    }

    @Option(
        help:
            "offline (a list of weighted words in this package) or http (a server in the Perspective API's format)."
    )
    var scorer: Kind = .offline
    @Option(
        help: ArgumentHelp(
            "Offline classifier instead of the word list, written by monet toxicity train-scorer.",
            valueName: "path"))
    var classifier: String?
    @Option(
        help: ArgumentHelp(
            "The http scorer's comments:analyze URL; or set PERSPECTIVE_API_URL. Google's by default.",
            valueName: "url"))
    var scorerUrl: String?
    @Option(help: ArgumentHelp("The http scorer's API key; or set PERSPECTIVE_API_KEY.", valueName: "key"))
    var scorerKey: String?
    @Option(help: "Attribute to request from the http scorer.")
    var attribute = "TOXICITY"
    @Option(help: "Timeout of a request, in seconds.")
    var scorerTimeout = 30.0
    @Option(help: "Attempts to score a text, with growing pauses between them.")
    var scorerAttempts = 6
    @Option(help: "Maximum requests per second; no limit by default.")
    var scorerRate: Double?

    func validate() throws {
        if !(scorerTimeout > 0 && scorerTimeout <= 3600) {
            throw ValidationError("--scorer-timeout is \(scorerTimeout), expected above 0, at most 3600")
        }
        if !(1...100).contains(scorerAttempts) {
            throw ValidationError("--scorer-attempts is \(scorerAttempts), expected 1 to 100")
        }
        if let scorerRate, !(0.001...1e6).contains(scorerRate) {
            throw ValidationError("--scorer-rate is \(scorerRate), expected 0.001 to 1000000")
        }
        if scorer == .http, classifier != nil {
            throw ValidationError("--classifier requires the offline scorer.")
        }
        if scorer == .offline, scorerUrl != nil || scorerKey != nil {
            throw ValidationError("--scorer-url and --scorer-key require --scorer http.")
        }
    }

    /// The scorer; Ctrl-C interrupts its waiting.
    func make(isQuiet: Bool) throws -> any ToxicityScorer {
        guard scorer == .http else {
            if let classifier { return try ToxicityClassifier(contentsOfFile: classifier) }
            return try WordToxicityScorer.shipped()
        }
        let environment = ProcessInfo.processInfo.environment
        var settings = HTTPToxicityScorer.Settings()
        if let url = scorerUrl ?? environment["PERSPECTIVE_API_URL"] { settings.url = url }
        settings.key = scorerKey ?? environment["PERSPECTIVE_API_KEY"]
        settings.attribute = attribute
        settings.timeout = scorerTimeout
        settings.attempts = scorerAttempts
        settings.requestsPerSecond = scorerRate
        return try HTTPToxicityScorer(
            settings, isCancelled: { Interruption.isRequested },
            note: { if !isQuiet { StandardError.write($0 + "\n") } })
    }
}
