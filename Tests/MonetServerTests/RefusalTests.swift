import Foundation
import MonetFoundation
import MonetServer
import TestSupport
import Testing

/// What the server refuses, and how it says so.
@Suite struct RefusalTests {
    /// Bodies for `/v1/completions`, with the key that the error names.
    static let bodies: [(body: String, param: String)] = [
        (#"{"prompt": "x", "foo": 1}"#, "foo"), (#"{}"#, "prompt"), (#"[]"#, ""),
        (#"{"prompt": 5}"#, "prompt"),
        (#"{"prompt": []}"#, "prompt"), (#"{"prompt": [[]]}"#, "prompt[0]"),
        (#"{"prompt": [1, "x"]}"#, "prompt[1]"), (#"{"prompt": [99999999]}"#, "prompt[0]"),
        (#"{"prompt": [-1]}"#, "prompt[0]"), (#"{"prompt": "x", "max_tokens": -1}"#, "max_tokens"),
        (#"{"prompt": "x", "max_tokens": 1.5}"#, "max_tokens"),
        (#"{"prompt": "x", "max_tokens": 1e300}"#, "max_tokens"),
        (#"{"prompt": "x", "temperature": "hot"}"#, "temperature"),
        (#"{"prompt": "x", "top_p": 2}"#, "top_p"),
        (#"{"prompt": "x", "n": 0}"#, "n"), (#"{"prompt": "x", "n": 1000000000}"#, "n"),
        (#"{"prompt": "x", "best_of": 1, "n": 2}"#, "best_of"),
        (#"{"prompt": "x", "best_of": 2, "stream": true}"#, "best_of"),
        (#"{"prompt": "x", "stream_options": {}}"#, "stream_options"),
        (#"{"prompt": "x", "logprobs": 101}"#, "logprobs"),
        (#"{"prompt": "x", "stop": 1}"#, "stop"), (#"{"prompt": "x", "stop": [1]}"#, "stop[0]"),
        (#"{"prompt": "x", "logit_bias": {"a": 1}}"#, "logit_bias"),
        (#"{"prompt": "x", "logit_bias": {"99999999": 1}}"#, "logit_bias"),
        (#"{"prompt": "x", "seed": 99999999999999999999}"#, "seed"),
        (#"{"prompt": "x", "model": "other"}"#, "model"),
        (#"{"prompt": "x", "monet": {"masks": ["other"]}}"#, "monet.masks[0]"),
        (#"{"prompt": "x", "monet": {"strengths": {"9/9": 1}}}"#, "monet.strengths"),
        (#"{"prompt": "x", "monet": {"strengths": {"0/1": -1}}}"#, "monet.strengths.0/1"),
        (#"{"prompt": "x", "monet": {"remove": ["0/99999999"]}}"#, "monet.remove[0]"),
        (
            #"{"prompt": "x", "monet": {"hidden_states": ["blocks.99.hook_resid_post"]}}"#,
            "monet.hidden_states[0]"
        ),
        (#"{"prompt": "x", "monet": {"experts_per_token": 1, "unit_scores": ["0/1"]}}"#, "monet.unit_scores"),
        (#"{"prompt": "x", "monet": {"more": 1}}"#, "monet.more"),
        (
            #"{"prompt": "x", "max_tokens": 60, "n": 128, "monet": {"hidden_states": ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern", "blocks.2.attn.hook_pattern"]}}"#,
            "monet"
        ),
        (#"{"prompt": "x", "stop": "\#(String(repeating: "a", count: 1001))"}"#, "stop"),
        (#"{"prompt": "x"} {}"#, "body"),
        (#"{"prompt": "x", "prompt": "y"}"#, "body"), (#"{"prompt": NaN}"#, "body"),
        ("{\"prompt\": \"\u{1}\"}", "body"),
    ]

    @Test func errorsNameTheKey() async throws {
        let server = try await RunningServer()
        try #require(!Self.bodies.isEmpty)
        for (body, param) in Self.bodies {
            let answer = try await server.send("POST", "/v1/completions", Data(body.utf8), [:])
            #expect((400..<500).contains(answer.status), "\(body): \(answer.status)")
            #expect(answer.param == param, "\(body): \(answer.text)")
            #expect(answer.json["error"]?["message"]?.stringValue?.isEmpty == false)
        }
        let long = String(repeating: "the sea ", count: 200)
        let answer = try await server.post("/v1/completions", ["prompt": .string(long)])
        #expect(answer.status == 400 && answer.json["error"]?["code"] == "context_length_exceeded")
        #expect(answer.text.contains("64"), "both lengths are named")
        let bytes = try await server.send(
            "POST", "/v1/completions", Data([0x7b, 0x22, 0xff, 0xfe, 0x22]), [:])
        #expect(bytes.status == 400 && bytes.param == "body")
    }

    @Test func otherEndpointsNameTheirKeys() async throws {
        let server = try await RunningServer()
        let unknown = try await server.post("/detokenize", ["tokens": [0, 2_147_483_647]])
        #expect(unknown.status == 400 && unknown.param == "tokens")
        for path in ["/tokenize", "/detokenize", "/apply-template"] {
            let body: JSONValue =
                switch path {
                case "/tokenize": ["model": "other", "prompt": "x"]
                case "/detokenize": ["model": "other", "tokens": [1]]
                default: ["model": "other", "messages": [["role": "user", "content": "x"]]]
                }
            let answer = try await server.post(path, body)
            #expect(answer.status == 404 && answer.param == "model", "\(path): \(answer.text)")
        }
        let wrong = try await server.send("PUT", "/tokenize", Data("{}".utf8), [:])
        #expect(wrong.status == 405 && wrong.headers["allow"] == "POST")
    }

    @Test func limits() async throws {
        let server = try await RunningServer {
            $0.bodyBytes = 2000; $0.parallel = 2; $0.queue = 1
        }
        let large = try await server.post(
            "/tokenize", ["prompt": .string(String(repeating: "a", count: 3000))])
        #expect(large.status == 413)
        let form = try await server.send(
            "POST", "/tokenize", Data("{\"prompt\": \"a\"}".utf8), ["Content-Type": "text/plain"])
        #expect(form.status == 415)
        // Three texts fit: two run and one waits.
        let full = try await server.post("/v1/completions", ["prompt": "the sea", "n": 4, "max_tokens": 1])
        #expect(full.status == 400 && full.param == "n")
        let answers = try await withThrowingTaskGroup(of: RunningServer.Answer.self) { group in
            for _ in 0..<12 {
                group.addTask {
                    try await server.post(
                        "/v1/completions",
                        ["prompt": "the sea", "max_tokens": 50, "n": 3, "ignore_eos": true])
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(answers.contains { $0.status == 200 })
        let refused = answers.filter { $0.status == 429 }
        #expect(!refused.isEmpty && refused.allSatisfy { $0.headers["retry-after"] != nil })
        #expect(answers.allSatisfy { [200, 429].contains($0.status) })
    }

    @Test func keysGuardEverythingButHealthAndThePage() async throws {
        let server = try await RunningServer { $0.apiKeys = ["first-key", "second"] }
        for path in ["/v1/models", "/metrics", "/tokenizer_info", "/api/info"] {
            let answer = try await server.get(path)
            #expect(answer.status == 401 && answer.headers["www-authenticate"] == "Bearer", "\(path)")
            #expect(
                try await server.get(path, headers: ["Authorization": "Bearer second"]).status == 200,
                "\(path)")
            for wrong in ["Bearer", "Bearer ", "Bearer secon", "Bearer secondd", "Basic second", "second"] {
                #expect(
                    try await server.get(path, headers: ["Authorization": wrong]).status == 401, "\(wrong)")
            }
        }
        for path in ["/health", "/", "/main.js", "/openapi.json"] {
            #expect(try await server.get(path).status == 200, "\(path)")
        }
    }

    @Test func pagesOfOtherSites() async throws {
        let server = try await RunningServer { $0.corsOrigins = ["https://example.org"] }
        let other = try await server.get("/health", headers: ["Origin": "https://evil.example"])
        #expect(other.headers["access-control-allow-origin"] == nil)
        let own = try await server.get("/health", headers: ["Origin": "https://example.org"])
        #expect(own.headers["access-control-allow-origin"] == "https://example.org")
        // A name that was made to lead here is not this machine's.
        for name in ["evil.example", "127.evil.example", "127.0.0.1.evil.example", "127.0.0.256"] {
            #expect(try await server.get("/health", headers: ["Host": name]).status == 403, "\(name)")
        }
        #expect(try await server.get("/health", headers: ["Host": "127.0.0.5:80"]).status == 200)
        let page = try await server.get("/")
        let policy = try #require(page.headers["content-security-policy"])
        #expect(policy.contains("script-src 'self';") && policy.contains("default-src 'none'"))
        #expect(!page.text.contains("<script>"))
    }

    @Test func masksAndResultsStayInTheirFolders() async throws {
        let server = try await RunningServer(withIndex: true)
        for name in ["../outside", "a/b", "..", ".hidden", "a\\b", "\u{0}", "x;DROP TABLE note"] {
            let answer = try await server.post(
                "/api/masks", ["name": .string(name), "strengths": ["0/1": 0]])
            #expect(answer.status == 400 && answer.param == "name", "\(name)")
        }
        let saved = try await server.post(
            "/api/masks", ["name": "mine-1", "strengths": ["0/1": 0, "1/2": 2]])
        #expect(saved.json["model"] == "small:mine-1")
        #expect(
            try await server.post("/api/masks", ["name": "mine-1", "strengths": ["0/1": 0]]).status == 409)
        #expect(try await server.get("/api/masks/mine-1").json["strengths"] == ["0/1": 0.0, "1/2": 2.0])
        #expect(try await server.get("/api/masks/..%2F..%2Fetc%2Fpasswd").status == 404)
        #expect(FileManager.default.fileExists(atPath: server.folder + "/masks/mine-1.mask"))
        #expect(try await server.get("/api/results").status == 404)
        let used = try await server.post(
            "/v1/completions", ["model": "small:mine-1", "prompt": "the sea", "max_tokens": 1])
        #expect(used.status == 200)
    }

    @Test func serversAskForKeysBeyondLoopback() {
        var options = ServerOptions()
        options.host = "0.0.0.0"
        #expect(!options.isLoopback)
        options.host = "::1"
        #expect(options.isLoopback)
    }

    /// Bytes that are no HTTP get an answer in the error object's form, alone and after a request.
    @Test(arguments: [
        ("GARBAGE\r\n\r\n", [400]),
        ("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGARBAGE\r\n\r\n", [200, 400]),
        (
            "POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            [400]
        ),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: \(String(repeating: "a", count: 40_000))\r\n\r\n", [431]),
    ])
    func brokenRequests(bytes: String, statuses: [Int]) async throws {
        let server = try await RunningServer()
        let port = try #require(UInt16(server.address.split(separator: ":").last ?? ""))
        let text = try await RawConnection.exchange(port: port, Array(bytes.utf8), answers: statuses.count)
        let found = text.components(separatedBy: "HTTP/1.1 ").dropFirst().compactMap { Int($0.prefix(3)) }
        #expect(Array(found.prefix(statuses.count)) == statuses, "\(text)")
        #expect(text.contains("\"error\":{\"message\""))
    }
}

/// A connection to a port of this machine that sends bytes as they are.
private enum RawConnection {
    /// Sends bytes and reads a number of answers, on a thread of its own: the server runs on the tasks' threads. On a
    /// machine that runs other tests, that may take a while.
    static func exchange(port: UInt16, _ bytes: [UInt8], answers: Int) async throws -> String {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<String, any Error>) in
            Thread { continuation.resume(with: Result { try read(port, bytes, answers) }) }.start()
        }
    }

    private static func read(_ port: UInt16, _ bytes: [UInt8], _ answers: Int) throws -> String {
        #if os(Linux)
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
            let descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #endif
        defer { close(descriptor) }
        var place = sockaddr_in()
        place.sin_family = sa_family_t(AF_INET)
        place.sin_addr.s_addr = inet_addr("127.0.0.1")
        place.sin_port = port.bigEndian
        let isOpen = withUnsafePointer(to: &place) { place in
            place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        try #require(isOpen)
        var limit = timeval(tv_sec: 120, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        _ = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, 0) }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            answer += buffer[..<count]
            let text = String(decoding: answer, as: UTF8.self)
            if text.components(separatedBy: "HTTP/1.1 ").count > answers, text.hasSuffix("}\n") { break }
        }
        return String(decoding: answer, as: UTF8.self)
    }
}
