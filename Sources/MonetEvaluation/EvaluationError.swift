/// What can go wrong in measuring.
public enum EvaluationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A setting outside its range.
    case invalidSetting(name: String, found: String, expected: String)

    public var description: String {
        switch self {
        case .invalidSetting(let name, let found, let expected): "\(name) is \(found), expected \(expected)"
        }
    }
}
