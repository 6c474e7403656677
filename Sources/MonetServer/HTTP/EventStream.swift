import HTTPTypes
import Hummingbird
import MonetFoundation

/// Server-sent events of JSON objects, ended by `data: [DONE]`.
struct EventStream: ~Copyable {
    private var writer: any ResponseBodyWriter

    init(_ writer: any ResponseBodyWriter) { self.writer = writer }

    /// Sends an object; waits while the client is slow to read.
    mutating func send(_ value: JSONValue) async throws {
        try await writer.write(ByteBuffer(string: "data: " + value.serialized() + "\n\n"))
    }

    /// Ends the stream.
    consuming func finish() async throws {
        try await writer.write(ByteBuffer(string: "data: [DONE]\n\n"))
        try await writer.finish(nil)
    }
}

extension Response {
    /// An answer of server-sent events. Errors of `body` become a last event, for the status has been sent.
    ///
    /// - `places`: kept until the answer is over, however it ends.
    static func events(
        _ context: ServerContext, keeping places: Admission.Places,
        _ body: @escaping @Sendable (inout EventStream) async throws -> Void
    ) -> Response {
        Response(
            status: .ok,
            headers: [
                .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache",
                .accelBuffering: "no",
            ],
            body: ResponseBody { writer in
                defer { withExtendedLifetime(places) {} }
                // The writer is used by the one task that runs meanwhile.
                nonisolated(unsafe) let own = writer
                try await context.whileConnected {
                    var stream = EventStream(own)
                    do {
                        try await body(&stream)
                    } catch is CancellationError {
                        throw CancellationError()
                    } catch let error as any HTTPResponseError {
                        throw error
                    } catch {
                        guard !Task.isCancelled else { throw error }
                        try await stream.send(APIError(engine: error).json)
                    }
                    try await stream.finish()
                }
            })
    }
}
