/// What can go wrong in evaluations.
public enum EvaluationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A setting outside its range.
    case invalidSetting(name: String, found: String, expected: String)

    /// A label without held-out text.
    case nothingHeldOut(label: String, origin: String)

    /// Too few texts of one kind to train or test a classifier.
    case tooFewExamples(toxic: Int, others: Int, origin: String)

    /// A file that is not a classifier.
    case malformedClassifier(path: String, reason: String)

    /// A server that gives no usable answers; `role` is what it is for.
    case serverFailed(url: String, role: String, attempts: Int, reason: String)

    /// A line that is not a prompt.
    case malformedPrompt(path: String, line: Int, reason: String)

    /// No prompts.
    case noPrompts(path: String)

    /// Records of another run, or damaged ones.
    case foreignRecords(path: String, reason: String)

    /// A file that holds no results of an evaluation.
    case malformedResults(path: String, reason: String)

    /// Two runs without a document that both answered.
    case nothingToCompare(first: String, second: String)

    /// Programs that a model writes cannot be run here.
    case noIsolation(reason: String)

    /// A task whose programs nobody allowed to run.
    case programsNotAllowed(task: String)

    public var description: String {
        switch self {
        case .invalidSetting(let name, let found, let expected): "\(name) is \(found), expected \(expected)"
        case .nothingHeldOut(let label, let origin):
            "\(origin): no held-out text of the label '\(label)', which is to be measured"
        case .tooFewExamples(let toxic, let others, let origin):
            "\(origin): \(toxic) toxic texts and \(others) others in the training or the held-out part, expected some of each"
        case .malformedClassifier(let path, let reason): "\(path): not a toxicity classifier: \(reason)"
        case .serverFailed(let url, let role, let attempts, let reason):
            "\(url): the \(role) \(reason) (\(attempts) \(attempts == 1 ? "try" : "tries"))"
        case .malformedPrompt(let path, let line, let reason): "\(path), line \(line): \(reason)"
        case .noPrompts(let path): "\(path): there are no prompts"
        case .noIsolation(let reason): reason
        case .programsNotAllowed(let task):
            "the task \(task) runs programs that the model writes, for which no isolation was given"
        case .malformedResults(let path, let reason): "\(path): not results of an evaluation: \(reason)"
        case .nothingToCompare(let first, let second):
            "\(first) and \(second) have no task with documents that both answered by the same metric"
        case .foreignRecords(let path, let reason): "\(path): \(reason)"
        }
    }
}
