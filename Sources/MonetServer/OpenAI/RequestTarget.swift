import MonetFoundation
import MonetModel

/// What a completion and a chat request say alike: the model with its masks, and how to answer.
struct RequestTarget: Sendable {
    /// The name that the request asked for, as answers repeat it.
    let name: String
    let monet: MonetExtension
    /// The named model's mask together with the request's own.
    let mask: UnitMask?
    let isStreamed: Bool
    let includesUsage: Bool

    /// - Throws: `APIError` if there is no such model or mask, or if options of a stream come without one.
    init(_ body: JSONValue, _ served: ServedModel) throws {
        name = body["model"]?.stringValue ?? served.name
        let own = try served.mask(ofModel: name)
        monet = try MonetExtension(body["monet"], served)
        let added = monet.mask
        mask = own.map { own in added.map { own.union($0) } ?? own } ?? added
        isStreamed = body["stream"]?.boolValue ?? false
        includesUsage = body["stream_options"]?["include_usage"]?.boolValue ?? false
        if let options = body["stream_options"], !options.isNull, !isStreamed {
            throw APIError.invalid("stream_options", "stream_options needs stream to be true")
        }
    }
}

/// A checked request for text: its work, and how its answer is written.
protocol TextPlan: Sendable {
    var job: TextJob { get set }
    var target: RequestTarget { get }
    /// The whole answer.
    func answer() async throws -> JSONValue
    /// The answer in chunks; `places` are released as texts end.
    func stream(_ events: inout EventStream, releasing places: Admission.Places) async throws
}
