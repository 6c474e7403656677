import HTTPTypes
import Hummingbird
import Logging
import MonetFoundation
import Synchronization

/// Turns all errors into answers in OpenAI's form, adds the headers that protect pages, and counts.
struct AnswerMiddleware: RouterMiddleware {
    let endpoints: [Endpoint]
    let options: ServerOptions
    let metrics: ServerMetrics

    func handle(
        _ request: Request, context: ServerContext,
        next: (Request, ServerContext) async throws -> Response
    ) async throws -> Response {
        let began = ContinuousClock.now
        var response: Response
        do {
            try checkHost(request)
            response = try await next(request, context)
        } catch is CancellationError {
            // Nobody is there to read it.
            response = APIError(
                HTTPResponse.Status(code: 499, reasonPhrase: "Client Closed Request"), "the client has gone"
            ).response()
        } catch let error as APIError {
            response = error.response()
        } catch let error as HTTPError {
            response = answer(to: error, request).response()
        } catch {
            context.logger.error("\(request.method) \(request.uri.path.onOneLine): \(error)")
            response = APIError(.internalServerError, "the server failed: \(error)").response()
        }
        response.headers[.xContentTypeOptions] = "nosniff"
        response.headers[.referrerPolicy] = "no-referrer"
        if response.headers[.contentSecurityPolicy] == nil {
            response.headers[.contentSecurityPolicy] = "default-src 'none'; frame-ancestors 'none'"
        }
        if response.headers[.cacheControl] == nil { response.headers[.cacheControl] = "no-store" }
        addCORS(request, to: &response)
        let path = endpoints.first { $0.matches(request.uri.path) }?.path ?? "other"
        metrics.count(path, response.status.code, seconds: (.now - began).seconds)
        return response
    }

    private func answer(to error: HTTPError, _ request: Request) -> APIError {
        let path = request.uri.path
        if error.status == .notFound {
            let methods = endpoints.filter { $0.matches(path) }.map(\.method.rawValue)
            if !methods.isEmpty {
                return APIError(
                    .methodNotAllowed,
                    "\(request.method.rawValue) is not possible here, \(methods.joined(separator: ", ")) is",
                    allowed: methods.contains("GET") ? methods + ["HEAD"] : methods)
            }
            return APIError(
                .notFound, "there is nothing at \(path); /openapi.json lists what there is", code: "not_found"
            )
        }
        return APIError(error.status, error.body ?? error.status.reasonPhrase)
    }

    /// On loopback, only names of this machine are answered: another site's name that was made to lead here would let
    /// its pages read everything.
    private func checkHost(_ request: Request) throws {
        guard options.isLoopback, options.apiKeys.isEmpty, let authority = request.head.authority else {
            return
        }
        var name = authority
        if name.hasPrefix("["), let end = name.firstIndex(of: "]") {
            name = String(name[name.index(after: name.startIndex)..<end])
        } else if let colon = name.lastIndex(of: ":") {
            name = String(name[..<colon])
        }
        guard name == options.host || ServerOptions.isLoopback(name) else {
            throw APIError(
                .forbidden, "the host '\(name)' is not this machine; use 127.0.0.1 or localhost",
                param: "Host")
        }
    }

    private func addCORS(_ request: Request, to response: inout Response) {
        guard let origin = request.headers[.origin],
            options.corsOrigins.contains(origin) || options.corsOrigins.contains("*")
        else { return }
        response.headers[.accessControlAllowOrigin] = options.corsOrigins.contains("*") ? "*" : origin
        response.headers[.vary] = "Origin"
        if request.method == .options {
            response.status = .noContent
            response.headers[.accessControlAllowMethods] = "GET, POST, DELETE"
            response.headers[.accessControlAllowHeaders] = "Authorization, Content-Type"
            response.headers[.accessControlMaxAge] = "600"
            response.headers[.contentType] = nil
            response.body = ResponseBody()
        }
    }
}

/// Compares keys without telling by the time it takes how much of one is right.
struct KeyCheck: Sendable {
    private let keys: [[UInt8]]

    init(_ keys: [String]) { self.keys = keys.map { Array($0.utf8) } }

    /// - Throws: `APIError` of status 401 unless the request has one of the keys, or none is needed.
    func check(_ request: Request) throws {
        guard !keys.isEmpty else { return }
        let header = request.headers[.authorization] ?? ""
        let given = Array((header.lowercased().hasPrefix("bearer ") ? header.dropFirst(7) : "").utf8)
        var isRight = false
        // Every key is compared, and all of it.
        for key in keys where Self.areEqual(key, given) { isRight = true }
        guard isRight else {
            throw APIError(
                .unauthorized,
                header.isEmpty
                    ? "a key is needed: send it as 'Authorization: Bearer KEY'"
                    : "the key is not one of this server's",
                code: "invalid_api_key")
        }
    }

    static func areEqual(_ key: [UInt8], _ given: [UInt8]) -> Bool {
        var difference = key.count ^ given.count
        for index in given.indices {
            difference |= Int((key.isEmpty ? 0 : key[index % key.count]) ^ given[index])
        }
        return difference == 0
    }
}

extension HTTPField.Name {
    static let accelBuffering = known("X-Accel-Buffering")
    static let referrerPolicy = known("Referrer-Policy")

    /// A name that is valid as it stands here.
    private static func known(_ name: String) -> HTTPField.Name { HTTPField.Name(name) ?? .server }
}
