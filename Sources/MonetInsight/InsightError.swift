/// What can go wrong in looking at experts.
public enum InsightError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The model is dense.
    case noExperts
    /// A name of an expert that is not `group/index`, or lies outside the model.
    case invalidExpert(name: String, expected: String)

    public var description: String {
        switch self {
        case .noExperts: "the model is a dense Llama; there are no experts to look at"
        case .invalidExpert(let name, let expected): "expert '\(name)' is not valid, expected \(expected)"
        }
    }
}
