import Crypto
import Foundation
import MonetFoundation
import Synchronization

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Requests to the hub, with its rules for redirects, tokens and repeated attempts.
struct HubConnection {
    let settings: HubDownload.Settings

    /// A file as the hub describes it.
    struct File {
        /// Where its content is.
        let url: URL
        /// The name of its content: its SHA-256, or Git's hash of it.
        let etag: String
        let size: Int
    }

    /// The text at an address of the hub.
    func text(_ url: String, named name: String, missing: String) throws -> String {
        let answer = try repeated(url, named: name, missing: missing) {
            try self.request("GET", $0, following: true)
        }
        return String(decoding: answer.body, as: UTF8.self)
    }

    /// Where a file's content is, and what it must be.
    func metadata(_ url: String, named name: String, missing: String) throws -> File {
        let answer = try repeated(url, named: name, missing: missing) {
            try self.request("HEAD", $0, following: false)
        }
        func header(_ names: String...) -> String? { names.lazy.compactMap { answer.headers[$0] }.first }
        let etag = (header("x-linked-etag", "etag") ?? "").replacingOccurrences(of: "W/", with: "")
            .trimmingCharacters(in: CharacterSet(charactersIn: "\""))
        guard let size = header("x-linked-size", "content-length").flatMap({ Int($0) }), size >= 0 else {
            throw HubError.failed(url: url, attempts: 1, reason: "the answer does not say the file's size")
        }
        let location = header("location").flatMap { URL(string: $0, relativeTo: answer.url)?.absoluteURL }
        return File(url: location ?? answer.url, etag: etag, size: size)
    }

    /// Downloads a file, continuing an earlier attempt, and checks its hash.
    /// - `again`: asks the hub for the file once more, where an address that it gave has expired.
    func download(
        _ first: File, to path: String, named name: String, again: () throws -> File,
        _ progress: (_ done: Int, _ total: Int, _ new: Int) -> Bool
    ) throws {
        let partial = path + ".incomplete"
        let descriptor = open(partial, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw FileError.unwritable(path: partial, reason: String(cString: strerror(errno)))
        }
        defer { close(descriptor) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw FileError.unwritable(path: partial, reason: "another process is downloading it")
        }
        var file = first
        var attempt = 0
        var wait = settings.backOff
        while true {
            var have = Int(lseek(descriptor, 0, SEEK_END))
            if have > file.size {
                ftruncate(descriptor, 0)
                have = 0
            }
            if have == file.size { break }
            attempt += 1
            let before = have
            let transfer = HubTransfer(descriptor: descriptor, path: partial, from: have)
            var outcome = try transfer.run(authorized("GET", file.url, from: have), settings.timeout) { new in
                // A host that does not continue makes the file begin anew.
                have = Int(lseek(descriptor, 0, SEEK_END))
                // More than was announced is not the file.
                return progress(min(have, file.size), file.size, new) && have <= file.size
            }
            if case .done = outcome, Int(lseek(descriptor, 0, SEEK_END)) != file.size {
                outcome = .failed(reason: "the answer ends before the file does", wait: nil)
            }
            if case .cancelled = outcome, have > file.size {
                ftruncate(descriptor, 0)
                outcome = .failed(reason: "the answer is longer than the file", wait: nil)
            }
            switch outcome {
            case .done: continue
            case .cancelled: throw CancellationError()
            case .unwritable(let reason): throw FileError.unwritable(path: partial, reason: reason)
            case .failed(let reason, let asked):
                // An attempt that brought something is not one of those that count.
                if Int(lseek(descriptor, 0, SEEK_END)) > before { (attempt, wait) = (1, settings.backOff) }
                // An address elsewhere is valid for a while only.
                if (300..<500).contains(transfer.status), transfer.status != 429, attempt < settings.attempts
                {
                    file = try again()
                }
                guard attempt < settings.attempts else {
                    throw HubError.failed(
                        url: file.url.absoluteString.shortened, attempts: attempt, reason: reason)
                }
                try pause(max(asked ?? 0, wait)) {
                    progress(Int(lseek(descriptor, 0, SEEK_END)), file.size, 0)
                }
                wait *= 2
            }
        }
        let found = try Self.hash(partial, like: file.etag, size: file.size)
        guard let found, found == file.etag.lowercased() else {
            if found == nil {
                // A tag that is no hash: nothing but the size can be checked.
                return try finish(descriptor, partial, path)
            }
            unlink(partial)
            throw HubError.wrongContent(file: name, expected: file.etag, found: found ?? "")
        }
        try finish(descriptor, partial, path)
    }

    private func finish(_ descriptor: Int32, _ partial: String, _ path: String) throws {
        guard fsync(descriptor) == 0, rename(partial, path) == 0 else {
            throw FileError.unwritable(path: path, reason: String(cString: strerror(errno)))
        }
    }

    /// The file's hash of the kind that a tag is: SHA-256 for large files, Git's SHA-1 otherwise; nil for other tags.
    private static func hash(_ path: String, like etag: String, size: Int) throws -> String? {
        guard
            etag.utf8.allSatisfy({
                UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0
                    || UInt8(ascii: "a")...UInt8(ascii: "f") ~= ($0 | 0x20)
            })
        else { return nil }
        func text(_ bytes: some Sequence<UInt8>) -> String {
            bytes.map { String(format: "%02x", $0) }.joined()
        }
        func read(_ body: (Data) -> Void) throws {
            guard let handle = FileHandle(forReadingAtPath: path) else {
                throw FileError.unreadable(path: path, reason: "it has gone")
            }
            defer { try? handle.close() }
            while let part = try handle.read(upToCount: 8 << 20), !part.isEmpty { body(part) }
        }
        switch etag.utf8.count {
        case 64:
            var hash = SHA256()
            try read { hash.update(data: $0) }
            return text(hash.finalize())
        case 40:
            var hash = Insecure.SHA1()
            hash.update(data: Data("blob \(size)\0".utf8))
            try read { hash.update(data: $0) }
            return text(hash.finalize())
        default: return nil
        }
    }

    // MARK: Requests

    private struct Answer {
        let status: Int
        let url: URL
        let headers: [String: String]
        let body: Data
    }

    /// A request with the token, if it goes to the hub itself.
    private func authorized(_ method: String, _ url: URL, from offset: Int = 0) -> URLRequest {
        var request = URLRequest(url: url)
        request.httpMethod = method
        request.timeoutInterval = settings.timeout
        request.setValue("monet", forHTTPHeaderField: "User-Agent")
        // Sizes and ranges are those of the stored file.
        request.setValue("identity", forHTTPHeaderField: "Accept-Encoding")
        if offset > 0 { request.setValue("bytes=\(offset)-", forHTTPHeaderField: "Range") }
        let hub = URL(string: settings.endpoint)
        if let token = settings.token, url.scheme == hub?.scheme, url.host == hub?.host, url.port == hub?.port
        {
            request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
        }
        return request
    }

    private func request(_ method: String, _ url: URL, following: Bool) throws -> Answer {
        var url = url
        for _ in 0..<8 {
            let transfer = HubTransfer()
            let outcome = try transfer.run(authorized(method, url), settings.timeout) { _ in true }
            if case .failed(let reason, let wait) = outcome,
                transfer.status == 0 || transfer.status >= 500 || transfer.status == 429
            {
                throw Retry(reason: reason, wait: wait)
            }
            let answer = Answer(
                status: transfer.status, url: url, headers: transfer.headers, body: transfer.body)
            guard (300..<400).contains(transfer.status), let location = transfer.headers["location"],
                let next = URL(string: location, relativeTo: url)?.absoluteURL
            else { return answer }
            // A file's place elsewhere is the answer; within the hub, it is a renamed repository.
            let isElsewhere = next.host != url.host || next.port != url.port
            if !following, isElsewhere || transfer.headers["x-linked-etag"] != nil { return answer }
            url = next
        }
        throw Retry(reason: "too many redirects", wait: nil)
    }

    private struct Retry: Error {
        let reason: String
        let wait: Double?
    }

    private func repeated(
        _ text: String, named name: String, missing: String, _ body: (URL) throws -> Answer
    ) throws -> Answer {
        guard let url = URL(string: text), url.scheme == "http" || url.scheme == "https", url.host != nil
        else {
            throw HubError.failed(url: text, attempts: 0, reason: "it is no http or https address")
        }
        var wait = settings.backOff
        for attempt in 1... {
            do {
                let answer = try body(url)
                switch answer.status {
                case 200..<400: return answer
                case 401, 403:
                    // The hub answers 401 for repositories that do not exist, unless a token shows who asks.
                    throw HubError.notAllowed(
                        name: name, status: answer.status, hasToken: settings.token != nil)
                case 404: throw HubError.notFound(what: missing)
                default:
                    throw HubError.failed(
                        url: text, attempts: attempt, reason: "the hub answers \(answer.status)")
                }
            } catch let retry as Retry {
                guard attempt < settings.attempts else {
                    throw HubError.failed(url: text, attempts: attempt, reason: retry.reason)
                }
                try pause(max(retry.wait ?? 0, wait)) { true }
                wait *= 2
            }
        }
        throw HubError.failed(url: text, attempts: settings.attempts, reason: "no answer")
    }

    private func pause(_ seconds: Double, _ isWanted: () -> Bool) throws {
        let end = ContinuousClock.now + .seconds(min(60, seconds))
        while ContinuousClock.now < end {
            guard isWanted() else { throw CancellationError() }
            Thread.sleep(forTimeInterval: 0.05)
        }
    }
}

extension String {
    /// Without a query, which may hold a signature.
    fileprivate var shortened: String { String(prefix { $0 != "?" }) }
}

/// One request, whose answer goes to a file or to memory.
///
/// `@unchecked Sendable`: the session's queue runs one call at a time, and the caller reads after it has ended.
private final class HubTransfer: NSObject, URLSessionDataDelegate, @unchecked Sendable {
    enum Outcome {
        case done
        case cancelled
        case unwritable(String)
        case failed(reason: String, wait: Double?)
    }

    private(set) var status = 0
    private(set) var headers: [String: String] = [:]
    private(set) var body = Data()
    private let descriptor: Int32?
    private let offset: Int
    private var refusal: Outcome?
    private var error: (any Error)?
    private let ended = DispatchSemaphore(value: 0)
    private let arrived = Mutex((bytes: 0, isWanted: true))

    private static let largestBody = 64 << 20

    override init() {
        (descriptor, offset) = (nil, 0)
    }

    init(descriptor: Int32, path: String, from offset: Int) {
        (self.descriptor, self.offset) = (descriptor, offset)
    }

    func run(_ request: URLRequest, _ timeout: Double, _ progress: (Int) -> Bool) throws -> Outcome {
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = timeout
        configuration.timeoutIntervalForResource = 7 * 24 * 3600
        let queue = OperationQueue()
        queue.maxConcurrentOperationCount = 1
        let session = URLSession(configuration: configuration, delegate: self, delegateQueue: queue)
        let task = session.dataTask(with: request)
        task.resume()
        var isCancelled = false
        while ended.wait(timeout: .now() + .milliseconds(100)) == .timedOut {
            let new = arrived.withLock { arrived in
                defer { arrived.bytes = 0 }
                return arrived.bytes
            }
            if !progress(new), !isCancelled {
                isCancelled = true
                task.cancel()
            }
        }
        session.finishTasksAndInvalidate()
        if !progress(arrived.withLock { $0.bytes }) || isCancelled { return .cancelled }
        if let refusal { return refusal }
        if let error { return .failed(reason: (error as NSError).localizedDescription, wait: nil) }
        guard (200..<300).contains(status) else {
            let wait = headers["retry-after"].flatMap(Double.init)
            return .failed(reason: "the server answers \(status)", wait: wait)
        }
        return .done
    }

    func urlSession(
        _ session: URLSession, task: URLSessionTask, willPerformHTTPRedirection response: HTTPURLResponse,
        newRequest request: URLRequest, completionHandler: @escaping (URLRequest?) -> Void
    ) {
        read(response)
        // Followed by the caller, who decides which host gets the token.
        completionHandler(nil)
    }

    private func read(_ response: URLResponse) {
        guard let response = response as? HTTPURLResponse else { return }
        status = response.statusCode
        headers = [:]
        for (key, value) in response.allHeaderFields {
            headers["\(key)".lowercased()] = "\(value)"
        }
    }

    func urlSession(
        _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
        completionHandler: @escaping (URLSession.ResponseDisposition) -> Void
    ) {
        read(response)
        if let descriptor, offset > 0, status == 200 || status == 416 {
            // The server does not continue: the file begins anew.
            ftruncate(descriptor, 0)
        }
        completionHandler(.allow)
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
        guard refusal == nil else { return }
        guard let descriptor else {
            if body.count + data.count <= Self.largestBody { body += data }
            return
        }
        guard (200..<300).contains(status) else { return }
        lseek(descriptor, 0, SEEK_END)
        let isWritten = data.withUnsafeBytes { bytes in
            guard let start = bytes.baseAddress else { return true }
            var place = 0
            while place < bytes.count {
                let count = write(descriptor, start + place, bytes.count - place)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return false }
                place += count
            }
            return true
        }
        if !isWritten {
            refusal = .unwritable(String(cString: strerror(errno)))
            dataTask.cancel()
        }
        arrived.withLock { $0.bytes += data.count }
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?) {
        self.error = error
        if status == 0, let response = task.response { read(response) }
        ended.signal()
    }
}
