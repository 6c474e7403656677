import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import MonetFoundation
import MonetGeneration
import NIOCore
import ServiceLifecycle
import Synchronization

/// An HTTP server for a model: OpenAI's interface, the tokenizer, health and metrics, and the explorer.
///
///     let server = ModelServer(options: options, logger: logger) { try loadModel() }
///     try await server.run()
///
/// It listens before the model is loaded, and answers 503 until it is. On SIGTERM or SIGINT, running requests end
/// and new ones are refused.
public struct ModelServer: Sendable {
    private let options: ServerOptions
    private let logger: Logger
    private let load: @Sendable () throws -> ServedModel
    private let whenListening: @Sendable (_ port: Int) -> Void
    private let holder = ModelHolder()

    /// - Parameters:
    ///   - load: opens the model; called on a thread of its own once the server listens.
    ///   - whenListening: called with the port.
    public init(
        options: ServerOptions, logger: Logger,
        whenListening: @escaping @Sendable (_ port: Int) -> Void = { _ in },
        load: @escaping @Sendable () throws -> ServedModel
    ) {
        self.options = options
        self.logger = logger
        self.load = load
        self.whenListening = whenListening
    }

    /// Listens until a signal stops the server.
    ///
    /// - Throws: `ServerError`, and what `load` throws.
    public func run() async throws {
        let admission = Admission(limit: options.parallel + options.queue)
        let metrics = ServerMetrics()
        let connections = Connections(readSeconds: options.readSeconds)
        let endpoints = endpoints(admission, metrics)
        let application = Application(
            router: router(endpoints, metrics),
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [ConnectionMonitor(connections)], idleTimeout: .seconds(120),
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: options.headerBytes, maxHeaderListSize: options.headerBytes,
                        maxHeaderFieldCount: 200))),
            configuration: .init(
                address: .hostname(options.host, port: options.port), serverName: "monet",
                availableConnectionsDelegate: MaximumAvailableConnections(options.connections)),
            onServerRunning: { channel in whenListening(channel.localAddress?.port ?? options.port) },
            logger: logger)
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [
                    .init(service: application), .init(service: ModelLoading(holder: holder, load: load)),
                    .init(
                        service: Draining(
                            admission: admission, connections: connections, seconds: options.stopSeconds)),
                ],
                gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        do {
            try await group.run()
        } catch let error as IOError {
            throw ServerError.cannotListen(host: options.host, port: options.port, reason: "\(error)")
        }
    }

    private func router(_ endpoints: [Endpoint], _ metrics: ServerMetrics) -> Router<ServerContext> {
        let router = Router(context: ServerContext.self, options: .autoGenerateHeadEndpoints)
        router.add(middleware: AnswerMiddleware(endpoints: endpoints, options: options, metrics: metrics))
        let keys = KeyCheck(options.apiKeys)
        for endpoint in endpoints {
            router.on(RouterPath(endpoint.path), method: endpoint.method) { request, context in
                if !endpoint.isOpen { try keys.check(request) }
                return try await endpoint.respond(request, context, limits: options)
            }
        }
        return router
    }

    private func endpoints(_ admission: Admission, _ metrics: ServerMetrics) -> [Endpoint] {
        var all = OpenAIEndpoints(holder: holder, admission: admission, metrics: metrics).all
        all += StatusEndpoints(holder: holder, admission: admission, metrics: metrics, options: options).all
        all += ExplorerEndpoints(holder: holder, admission: admission).all
        all += ExplorerPage.endpoints
        let document = OpenAPIDocument(
            endpoints: all.filter { !ExplorerPage.paths.contains($0.path) },
            needsKey: !options.apiKeys.isEmpty, version: "1"
        ).json
        all.append(
            Endpoint(
                method: .get, path: "/openapi.json", summary: "This document.", isOpen: true
            ) { _ in .json(document) })
        return all
    }
}

/// The model, once it is loaded.
final class ModelHolder: Sendable {
    private let state = Mutex<ServedModel?>(nil)

    /// The model.
    ///
    /// - Throws: `APIError` of status 503 while it is loaded.
    func model() throws -> ServedModel {
        guard let model = loaded else {
            throw APIError(.serviceUnavailable, "the model is being loaded", code: "loading", retryAfter: 1)
        }
        return model
    }

    var loaded: ServedModel? { state.withLock { $0 } }

    func set(_ model: ServedModel) { state.withLock { $0 = model } }
}

/// Loads the model while the server already listens.
private struct ModelLoading: Service {
    let holder: ModelHolder
    let load: @Sendable () throws -> ServedModel

    func run() async throws {
        let holder = holder
        let load = load
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            let thread = Thread {
                do {
                    holder.set(try load())
                    continuation.resume()
                } catch {
                    continuation.resume(throwing: error)
                }
            }
            thread.stackSize = 1 << 23
            thread.start()
        }
        try? await gracefulShutdown()
        holder.loaded?.generation.stop()
    }
}

/// The first service to stop: refuses new requests, and waits until the running ones have ended.
private struct Draining: Service {
    let admission: Admission
    let connections: Connections
    let seconds: Double

    func run() async throws {
        try? await gracefulShutdown()
        admission.drain()
        let end = ContinuousClock.now + .seconds(seconds)
        while admission.counts.requests > 0, ContinuousClock.now < end {
            do { try await Task.sleep(for: .milliseconds(20)) } catch { break }
        }
        // Who has not read its answer by now does not get the rest.
        connections.closeAll()
    }
}

/// Health and metrics.
struct StatusEndpoints: Sendable {
    let holder: ModelHolder
    let admission: Admission
    let metrics: ServerMetrics
    let options: ServerOptions

    var all: [Endpoint] {
        [
            Endpoint(
                method: .get, path: "/health", summary: "200 if the model answers, 503 while it does not.",
                isOpen: true
            ) { _ in
                let status = holder.loaded?.generation.status
                func answer(_ word: String) -> Response {
                    .json(["status": .string(word)], status: word == "ok" ? .ok : .serviceUnavailable)
                }
                guard let status else { return answer("loading") }
                if admission.isDraining { return answer("stopping") }
                if status.hasStopped || status.secondsInStep > options.stallSeconds {
                    return answer("stalled")
                }
                return answer("ok")
            },
            Endpoint(
                method: .get, path: "/metrics", summary: "Counts in Prometheus's text format.",
                answers: ["text/plain"]
            ) { _ in
                .text(
                    metrics.text(holder.loaded?.generation.status, admission),
                    type: "text/plain; version=0.0.4")
            },
        ]
    }
}
