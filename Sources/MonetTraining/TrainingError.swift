/// What can go wrong in training.
public enum TrainingError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A key of a run file that cannot be used.
    case invalidSetting(source: String, key: String, found: String, expected: String)
    /// The loss or the gradient is not finite, or the loss diverges.
    case diverged(step: Int, reason: String, lastCheckpoint: String?)
    /// The run folder already contains a run.
    case runExists(folder: String)
    /// Nothing to resume, or something incompatible.
    case cannotResume(folder: String, reason: String)

    public var description: String {
        switch self {
        case .invalidSetting(let source, let key, let found, let expected):
            "\(source): \(key.isEmpty ? "it" : "\"\(key)\"") is \(found), expected \(expected)"
        case .diverged(let step, let reason, let lastCheckpoint):
            "training stopped at step \(step): \(reason); "
                + (lastCheckpoint.map { "the last good checkpoint is \($0)" } ?? "there is no checkpoint yet")
        case .runExists(let folder):
            "\(folder): a run is there already"
        case .cannotResume(let folder, let reason): "\(folder): cannot resume: \(reason)"
        }
    }
}
