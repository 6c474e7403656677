import Foundation

/// How a server listens, whom it answers and what it allows.
public struct ServerOptions: Sendable {
    /// The address to listen on. Without a key, others than loopback have to be asked for.
    public var host = "127.0.0.1"
    /// The port; 0 takes a free one.
    public var port = 8080
    /// Keys of which a client sends one as `Authorization: Bearer`; none asks for none.
    public var apiKeys: [String] = []
    /// Origins of pages in browsers that may read answers, besides the server's own; `*` for all.
    public var corsOrigins: [String] = []
    /// Largest body of a request in bytes.
    public var bodyBytes = 16 << 20
    /// Largest headers of a request in bytes.
    public var headerBytes = 32 << 10
    /// Texts that run at a time.
    public var parallel = 16
    /// Texts that may wait for a place; further requests get 429.
    public var queue = 256
    /// Connections at a time; further ones wait to be accepted.
    public var connections = 1024
    /// Seconds that a client may leave an answer unread before its connection is closed.
    public var readSeconds = 120.0
    /// Seconds that a forward pass may take before `/health` says that the engine stands still.
    public var stallSeconds = 60.0
    /// Seconds that running requests have to end when the server stops.
    public var stopSeconds = 30.0

    /// Loopback, port 8080, 16 texts at a time, 256 waiting.
    public init() {}

    /// Whether the address is reached from this machine only.
    public var isLoopback: Bool {
        Self.isLoopback(host)
    }

    /// Whether a name is one of this machine alone: a number in 127.0.0.0/8, and no name that begins like one.
    static func isLoopback(_ name: String) -> Bool {
        if ["localhost", "::1"].contains(name) { return true }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127"
            && parts.allSatisfy { part in part.utf8.count <= 3 && UInt8(part) != nil }
    }
}

/// What can go wrong with a server as such.
public enum ServerError: Error, Sendable, Equatable, CustomStringConvertible {
    /// An address other than loopback without a key.
    case unprotected(host: String)
    /// A port that cannot be listened on.
    case cannotListen(host: String, port: Int, reason: String)
    /// A model without a tokenizer.
    case missingTokenizer(folder: String)
    /// Two masks of one name, or a name that cannot be part of a model's.
    case invalidMaskName(name: String, reason: String)

    public var description: String {
        switch self {
        case .unprotected(let host):
            "listening on \(host) would let anyone on the network use the model without a key"
        case .cannotListen(let host, let port, let reason): "cannot listen on \(host):\(port): \(reason)"
        case .missingTokenizer(let folder):
            "\(folder): a server needs the tokenizer, and the checkpoint has no tokenizer.model"
        case .invalidMaskName(let name, let reason): "the mask name '\(name)' \(reason)"
        }
    }
}
