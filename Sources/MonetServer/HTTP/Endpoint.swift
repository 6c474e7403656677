import HTTPTypes
import Hummingbird
import MonetFoundation
import NIOCore
import NIOPosix

/// One operation of the HTTP interface: its place in the OpenAPI document and what runs it, in one value.
struct Endpoint: Sendable {
    /// A part of the path, or a key of the query.
    struct Parameter: Sendable {
        enum Place: String, Sendable { case path, query }

        let name: String
        let place: Place
        let schema: Schema
        let description: String
    }

    /// A checked request.
    struct Call: Sendable {
        /// The body; null if the operation has none.
        let body: JSONValue
        /// Parameters of path and query, as their schemas read them.
        let parameters: [String: JSONValue]
        let context: ServerContext
    }

    let method: HTTPRequest.Method
    /// As in OpenAPI: `/v1/models/{model}`.
    let path: String
    let summary: String
    var parameters: [Parameter] = []
    var body: Schema?
    /// Types of an answer with status 200.
    var answers: [String] = ["application/json"]
    /// Statuses of errors that its own checks give.
    var errors: [HTTPResponse.Status] = []
    /// Whether it answers without a key.
    var isOpen = false
    let run: @Sendable (Call) async throws -> Response

    /// Whether a path is one of this operation's.
    func matches(_ other: String) -> Bool {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let others = other.split(separator: "/", omittingEmptySubsequences: false)
        return parts.count == others.count
            && zip(parts, others).allSatisfy { $0 == $1 || ($0.hasPrefix("{") && !$1.isEmpty) }
    }
}

extension Endpoint {
    /// Reads, checks and runs a request.
    func respond(_ request: Request, _ context: ServerContext, limits: ServerOptions) async throws -> Response
    {
        let parameters = try parameterValues(request, context)
        var value = JSONValue.null
        if let body {
            let bytes = try await Self.bytes(request, limits)
            // Large bodies take a while: not on the threads that serve everybody.
            value = try await NIOThreadPool.singleton.runIfActive {
                let value = try Self.json(bytes)
                try body.check(value, at: "")
                return value
            }
        }
        return try await run(Call(body: value, parameters: parameters, context: context))
    }

    private func parameterValues(_ request: Request, _ context: ServerContext) throws -> [String: JSONValue] {
        var result: [String: JSONValue] = [:]
        for parameter in parameters where parameter.place == .path {
            guard let text = context.parameters.get(parameter.name)?.removingPercentEncoding else {
                throw APIError.invalid(parameter.name, "\(parameter.name) is no text in percent encoding")
            }
            result[parameter.name] = try parameter.value(text)
        }
        for (key, text) in request.uri.queryParameters {
            let name = String(key)
            guard let parameter = parameters.first(where: { $0.place == .query && $0.name == name }) else {
                throw APIError.invalid(
                    name, "the query's key '\(name)' is not known here", code: "unknown_parameter")
            }
            guard result[name] == nil else {
                throw APIError.invalid(name, "the query's key '\(name)' is given twice")
            }
            result[name] = try parameter.value(String(text))
        }
        return result
    }

    private static func bytes(_ request: Request, _ limits: ServerOptions) async throws -> ByteBuffer {
        let type = request.headers[.contentType]?.split(separator: ";").first.map {
            $0.trimmingPrefix(" ").lowercased()
        }
        // Pages of other origins can send everything but JSON without being asked for permission.
        guard type?.trimmingCharacters(in: .whitespaces) == "application/json" else {
            throw APIError(
                .unsupportedMediaType,
                "the content type is \(type.map { "'\($0)'" } ?? "not given"), expected application/json",
                param: "Content-Type")
        }
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limits.bodyBytes {
            throw tooLarge(limits)
        }
        var bytes = ByteBuffer()
        do {
            for try await part in request.body {
                guard bytes.readableBytes + part.readableBytes <= limits.bodyBytes else {
                    throw tooLarge(limits)
                }
                bytes.writeImmutableBuffer(part)
            }
        } catch let error as APIError {
            throw error
        } catch {
            throw APIError(
                .badRequest, "the body is broken off: \(error)", param: "body", code: "broken_body")
        }
        return bytes
    }

    private static func json(_ bytes: ByteBuffer) throws -> JSONValue {
        do {
            return try bytes.withUnsafeReadableBytes { try JSONValue(parsing: $0, source: "the body") }
        } catch {
            throw APIError(.badRequest, "the body is no JSON: \(error)", param: "body", code: "invalid_json")
        }
    }

    private static func tooLarge(_ limits: ServerOptions) -> APIError {
        APIError(
            .contentTooLarge, "the body has more than \(limits.bodyBytes) bytes", param: "body",
            code: "body_too_large")
    }
}

extension Endpoint.Parameter {
    /// The value that a text of a path or a query stands for.
    fileprivate func value(_ text: String) throws -> JSONValue {
        guard !text.contains("\0") else { throw APIError.invalid(name, "\(name) holds a NUL") }
        var value = JSONValue.string(text)
        switch schema {
        case .integer: value = Int(text).map { .integer($0) } ?? value
        case .number: value = Double(text).map { .number($0) } ?? value
        case .boolean: value = ["true": .bool(true), "false": .bool(false)][text] ?? value
        default: break
        }
        try schema.check(value, at: name)
        return value
    }
}
