/// What can go wrong in measuring.
public enum EvaluationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A setting outside its range.
    case invalidSetting(name: String, found: String, expected: String)

    /// A label without held-out text.
    case nothingHeldOut(label: String, origin: String)

    public var description: String {
        switch self {
        case .invalidSetting(let name, let found, let expected): "\(name) is \(found), expected \(expected)"
        case .nothingHeldOut(let label, let origin):
            "\(origin): no held-out text of the label '\(label)', which is to be measured"
        }
    }
}
