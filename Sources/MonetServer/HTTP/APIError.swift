import HTTPTypes
import Hummingbird
import MonetFoundation

/// An error of the HTTP interface in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`.
public struct APIError: Error, Sendable, Equatable {
    /// The status of the answer.
    public var status: HTTPResponse.Status
    /// What is wrong, and what was expected.
    public var message: String
    /// The key of the request that is wrong, such as `messages[0].role`.
    public var param: String?
    /// OpenAI's short name of the error, such as `model_not_found`.
    public var code: String?
    /// Seconds after which a client should try again.
    public var retryAfter: Int?
    /// The methods that are possible instead.
    var allowed: [String] = []

    /// Describes an error.
    public init(
        _ status: HTTPResponse.Status, _ message: String, param: String? = nil, code: String? = nil,
        retryAfter: Int? = nil
    ) {
        (self.status, self.message, self.param, self.code) = (status, message, param, code)
        self.retryAfter = retryAfter
    }

    init(_ status: HTTPResponse.Status, _ message: String, allowed: [String]) {
        self.init(status, message)
        self.allowed = allowed
    }

    /// A value of the request that cannot be used.
    static func invalid(_ param: String, _ message: String, code: String? = nil) -> APIError {
        APIError(.badRequest, message, param: param, code: code)
    }

    /// OpenAI's class of the error.
    public var type: String {
        switch status.code {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 429: "rate_limit_error"
        case 500...: "server_error"
        default: "invalid_request_error"
        }
    }

    /// The body of the answer.
    public var json: JSONValue {
        func text(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
        return [
            "error": [
                "message": .string(message), "type": .string(type), "param": text(param), "code": text(code),
            ]
        ]
    }

    /// The answer.
    func response() -> Response {
        var response = Response.json(json, status: status)
        if let retryAfter { response.headers[.retryAfter] = "\(retryAfter)" }
        if !allowed.isEmpty { response.headers[.allow] = allowed.joined(separator: ", ") }
        if status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
        return response
    }
}

extension Response {
    /// An answer in JSON.
    static func json(_ value: JSONValue, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: "application/json; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: value.serialized() + "\n")))
    }

    /// An answer of some type of text.
    static func text(_ text: String, type: String, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: type + "; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}
