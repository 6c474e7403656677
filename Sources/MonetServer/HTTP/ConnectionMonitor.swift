import HTTPTypes
import Hummingbird
import MonetFoundation
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import Synchronization

/// Tells what waits for a generation when its client has closed the connection, and answers what is no HTTP.
///
/// `@unchecked Sendable`: its state is behind a mutex, or touched on the channel's event loop only.
final class ConnectionMonitor: ChannelDuplexHandler, RemovableChannelHandler, @unchecked Sendable {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private struct State {
        var isGone = false
        var next = 0
        var listeners: [Int: @Sendable () -> Void] = [:]
    }

    private let state = Mutex(State())
    private let connections: Connections
    /// Requests that have been read and not been answered.
    private var unanswered = 0
    /// Whether a request's body is still being read.
    private var isReading = false
    /// What came after the requests that are yet to be answered, and is no HTTP.
    private var broken: HTTPParserError?
    private var isFull: Scheduled<Void>?

    init(_ connections: Connections) { self.connections = connections }

    /// Calls `body` when the client goes, at once if it has gone; returns what `remove` takes.
    func add(_ body: @escaping @Sendable () -> Void) -> Int? {
        let id: Int? = state.withLock { state in
            guard !state.isGone else { return nil }
            state.next += 1
            state.listeners[state.next] = body
            return state.next
        }
        if id == nil { body() }
        return id
    }

    func remove(_ id: Int?) {
        guard let id else { return }
        state.withLock { $0.listeners[id] = nil }
    }

    private func goes() {
        let listeners = state.withLock { state in
            state.isGone = true
            defer { state.listeners = [:] }
            return state.listeners.values.map { $0 }
        }
        for listener in listeners { listener() }
    }

    func handlerAdded(context: ChannelHandlerContext) { connections.add(context.channel) }

    /// A client that reads nothing for long is closed: its answer waits in memory.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        isFull?.cancel()
        isFull = nil
        if !context.channel.isWritable {
            let channel = context.channel
            isFull = context.eventLoop.scheduleTask(in: .seconds(connections.readSeconds)) {
                channel.close(promise: nil)
            }
        }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        isFull?.cancel()
        connections.remove(context.channel)
        goes()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { goes() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // A client that sends no more has gone: none of them closes one direction only.
        if case .inputClosed? = event as? ChannelEvent { goes() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head: (unanswered, isReading) = (unanswered + 1, true)
        case .end: isReading = false
        case .body: break
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        var ends = false
        if case .end = unwrapOutboundIn(data) {
            unanswered -= 1
            ends = unanswered == 0
        }
        context.write(data, promise: promise)
        if ends, let broken { answer(broken, context) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // In the middle of a body, the request's handler gets the error.
        guard let error = error as? HTTPParserError, !isReading, context.channel.isActive else {
            context.fireErrorCaught(error)
            return
        }
        if unanswered == 0 { answer(error, context) } else { broken = error }
    }

    private func answer(_ error: HTTPParserError, _ context: ChannelHandlerContext) {
        broken = nil
        let isLong = error == .headerOverflow
        let answer = APIError(
            isLong ? .requestHeaderFieldsTooLarge : .badRequest,
            isLong ? "the headers are too long" : "this is no HTTP request: \(error)")
        let body = ByteBuffer(string: answer.json.serialized() + "\n")
        let head = HTTPResponse(
            status: answer.status,
            headerFields: [
                .contentType: "application/json; charset=utf-8", .contentLength: "\(body.readableBytes)",
                .connection: "close",
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(body)), promise: nil)
        let written = context.eventLoop.makePromise(of: Void.self)
        // The connection is closed once the answer is out: what follows on it is no HTTP either.
        let channel = context.channel
        written.futureResult.whenComplete { _ in channel.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
    }
}

/// The open connections, to close them when the server stops.
final class Connections: Sendable {
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])
    /// Seconds that a client may leave an answer unread.
    let readSeconds: Int64

    init(readSeconds: Double = 120) { self.readSeconds = Int64(readSeconds) }

    func add(_ channel: any Channel) { channels.withLock { $0[ObjectIdentifier(channel)] = channel } }
    func remove(_ channel: any Channel) { channels.withLock { $0[ObjectIdentifier(channel)] = nil } }

    func closeAll() {
        for channel in channels.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    }
}

/// What a request's handlers know of it.
struct ServerContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    /// Runs something that is cancelled when the client goes.
    func whileConnected<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws
        -> Value
    {
        let channel = channel
        let monitor: ConnectionMonitor
        do {
            monitor = try await channel.eventLoop.submit {
                try channel.pipeline.syncOperations.handler(type: ConnectionMonitor.self)
            }.get()
        } catch {
            // The connection has been closed meanwhile.
            throw CancellationError()
        }
        let task = Task { try await body() }
        let listener = monitor.add { task.cancel() }
        defer { monitor.remove(listener) }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }
}
