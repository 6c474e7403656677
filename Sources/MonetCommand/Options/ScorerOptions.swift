import ArgumentParser
import Foundation
import MonetEvaluation

/// Who judges texts.
struct ScorerOptions: ParsableArguments {
    enum Kind: String, ExpressibleByArgument, CaseIterable {
        case offline, http
    }

    @Option(
        help: "offline (the classifier that comes along) or http (a server in the Perspective API's format).")
    var scorer: Kind = .offline
    @Option(
        help: ArgumentHelp(
            "Use this classifier of monet toxicity train-scorer offline.", valueName: "path"))
    var classifier: String?
    @Option(
        help: ArgumentHelp(
            "The http scorer's comments:analyze address; also as PERSPECTIVE_API_URL. Google's by default.",
            valueName: "url"))
    var scorerUrl: String?
    @Option(help: ArgumentHelp("The http scorer's key; also as PERSPECTIVE_API_KEY.", valueName: "key"))
    var scorerKey: String?
    @Option(help: "Attribute that the http scorer is asked for.")
    var attribute = "TOXICITY"
    @Option(help: "Seconds that a request may take.")
    var scorerTimeout = 30.0
    @Option(help: "Tries for a text, with growing pauses between them.")
    var scorerAttempts = 6
    @Option(help: "Requests a second at most; no limit by default.")
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
            throw ValidationError("--classifier goes with the offline scorer.")
        }
        if scorer == .offline, scorerUrl != nil || scorerKey != nil {
            throw ValidationError("--scorer-url and --scorer-key go with --scorer http.")
        }
    }

    /// The scorer; Ctrl-C ends its waiting.
    func make(isQuiet: Bool) throws -> any ToxicityScorer {
        guard scorer == .http else {
            return try classifier.map { try ToxicityClassifier(contentsOfFile: $0) }
                ?? ToxicityClassifier.shipped()
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
