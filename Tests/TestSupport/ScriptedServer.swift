import Foundation
import Synchronization

/// A real HTTP/1.1 server on this machine whose answers a test writes.
///
/// Each connection carries one request; the answer closes it.
public final class ScriptedServer: Sendable {
    /// What came in.
    public struct Request: Sendable {
        public let method: String
        public let target: String
        /// By their names in small letters.
        public let headers: [String: String]
        public let body: String
    }

    /// What goes out.
    public struct Answer: Sendable {
        public var status = 200
        public var headers: [String: String] = [:]
        public var body = ""
        /// Seconds before it is sent.
        public var delay = 0.0
        /// How much of the body is sent before the connection is cut; nil for all of it.
        public var cut: Int?

        public init(
            status: Int = 200, headers: [String: String] = [:], body: String = "", delay: Double = 0,
            cut: Int? = nil
        ) {
            self.cut = cut
            self.status = status
            self.headers = headers
            self.body = body
            self.delay = delay
        }
    }

    public struct SocketError: Error {}

    /// `http://127.0.0.1:PORT`.
    public let address: String
    private let descriptor: Int32
    private let seen = Mutex<[Request]>([])
    private let isStopped = Mutex(false)
    private let answer: @Sendable (Request, Int) -> Answer

    /// Requests so far.
    public var requests: [Request] { seen.withLock { $0 } }

    /// Starts listening; `answer` is given each request and its number, from 0.
    public init(answer: @escaping @Sendable (Request, Int) -> Answer) throws {
        self.answer = answer
        #if os(Linux)
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
            let descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #endif
        self.descriptor = descriptor
        var place = sockaddr_in()
        place.sin_family = sa_family_t(AF_INET)
        place.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &place) { place in
            place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 64) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard isBound else { throw SocketError() }
        address = "http://127.0.0.1:\(UInt16(bigEndian: place.sin_port))"
        Thread { [weak self] in
            while true {
                let connection = accept(descriptor, nil, nil)
                guard connection >= 0, let self else { return }
                Thread { self.serve(connection) }.start()
            }
        }.start()
    }

    /// Stops listening. A second call does nothing: the descriptor may be another's by then.
    public func stop() {
        let wasStopped = isStopped.withLock { isStopped in
            defer { isStopped = true }
            return isStopped
        }
        if wasStopped { return }
        shutdown(descriptor, Int32(SHUT_RDWR))
        close(descriptor)
    }

    private func serve(_ connection: Int32) {
        defer { close(connection) }
        var received = Data()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(connection, &buffer, buffer.count, 0)
            if count <= 0 { return }
            received.append(contentsOf: buffer[..<count])
            guard let end = received.range(of: Data("\r\n\r\n".utf8)) else { continue }
            let head = String(decoding: received[..<end.lowerBound], as: UTF8.self)
            let lines = head.components(separatedBy: "\r\n")
            let length =
                lines.compactMap { line -> Int? in
                    let parts = line.split(separator: ":", maxSplits: 1)
                    return parts.first?.lowercased() == "content-length"
                        ? Int(parts[1].trimmingCharacters(in: .whitespaces)) : nil
                }.first ?? 0
            let body = received[end.upperBound...]
            guard body.count >= length else { continue }
            let words = lines[0].split(separator: " ")
            var headers: [String: String] = [:]
            for line in lines.dropFirst() {
                let parts = line.split(separator: ":", maxSplits: 1)
                guard parts.count == 2 else { continue }
                headers[parts[0].lowercased()] = parts[1].trimmingCharacters(in: .whitespaces)
            }
            let request = Request(
                method: words.first.map(String.init) ?? "", target: words.count > 1 ? String(words[1]) : "",
                headers: headers, body: String(decoding: body, as: UTF8.self))
            let number = seen.withLock { seen in
                seen.append(request)
                return seen.count - 1
            }
            send(answer(request, number), to: connection, withBody: request.method != "HEAD")
            return
        }
    }

    private func send(_ answer: Answer, to connection: Int32, withBody: Bool) {
        if answer.delay > 0 { Thread.sleep(forTimeInterval: answer.delay) }
        var head = "HTTP/1.1 \(answer.status) Status\r\nConnection: close\r\n"
        for (name, value) in answer.headers { head += "\(name): \(value)\r\n" }
        if !answer.headers.keys.contains("Content-Length") {
            head += "Content-Length: \(answer.body.utf8.count)\r\n"
        }
        let body = withBody ? Array(answer.body.utf8.prefix(answer.cut ?? .max)) : []
        let bytes = Array((head + "\r\n").utf8) + body
        var sent = 0
        while sent < bytes.count {
            #if os(Linux)
                let count = bytes[sent...].withUnsafeBytes {
                    Foundation.send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
            #else
                let count = bytes[sent...].withUnsafeBytes {
                    Foundation.send(connection, $0.baseAddress, $0.count, 0)
                }
            #endif
            guard count > 0 else { return }
            sent += count
        }
    }
}

extension ScriptedServer.Answer {
    /// A score in the Perspective API's format.
    public static func score(_ value: Double, delay: Double = 0) -> ScriptedServer.Answer {
        ScriptedServer.Answer(
            body: """
                {"attributeScores": {"TOXICITY": {"spanScores": [], "summaryScore": {"value": \(value), "type": "PROBABILITY"}}}, "languages": ["en"]}
                """, delay: delay)
    }
}
