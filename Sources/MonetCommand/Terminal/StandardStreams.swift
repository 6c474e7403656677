import Foundation
import MonetFoundation

/// The three standard streams, of which any may be closed, full, or without a reader.
enum StandardStreams {
    /// Occupies the descriptors of closed streams, so that no file that is opened later gets messages or results
    /// written into it. Using such a stream then fails as if it were closed.
    static func reserve() {
        for (descriptor, mode) in [
            (STDIN_FILENO, O_WRONLY), (STDOUT_FILENO, O_RDONLY), (STDERR_FILENO, O_RDONLY),
        ]
        where fcntl(descriptor, F_GETFD) < 0 {
            // Descriptors are given out from the lowest on.
            _ = open("/dev/null", mode)
        }
    }

    /// Writes all bytes; returns the error number, 0 on success.
    fileprivate static func write(_ text: String, to descriptor: Int32) -> Int32 {
        var text = text
        return text.withUTF8 { bytes in
            var offset = 0
            while offset < bytes.count, let base = bytes.baseAddress {
                let count = Foundation.write(descriptor, base + offset, bytes.count - offset)
                if count >= 0 {
                    offset += count
                } else if errno == EAGAIN {
                    var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&waiting, 1, 1000)
                } else if errno != EINTR {
                    return errno
                }
            }
            return 0
        }
    }
}

/// Writing to standard error: messages, progress. A message that cannot be written is lost, and nothing else.
enum StandardError {
    /// Whether it is a terminal.
    static var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }

    static func write(_ text: String) { _ = StandardStreams.write(text, to: STDERR_FILENO) }
}

/// Writing results to standard output, unbuffered so that the reader of a pipe gets them at once.
enum StandardOutput {
    /// Whether it is a terminal.
    static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

    /// Writes a text.
    ///
    /// - Throws: `FileError.unwritable`.
    static func write(_ text: String) throws {
        let error = StandardStreams.write(text, to: STDOUT_FILENO)
        guard error == 0 else {
            throw FileError.unwritable(path: "standard output", reason: String(cString: strerror(error)))
        }
    }

    /// Writes text that a model generated or a stranger wrote: to a terminal without what would steer it, elsewhere
    /// as it is.
    ///
    /// - Throws: `FileError.unwritable`.
    static func write(foreign text: String) throws {
        try write(isTerminal ? text.withoutTerminalControls : text)
    }

    /// One JSON document, indented.
    static func write(_ json: JSONValue) throws { try write(json.serialized(pretty: true) + "\n") }
}

/// Reading standard input.
enum StandardInput {
    /// Whether it is a terminal.
    static var isTerminal: Bool { isatty(STDIN_FILENO) == 1 }

    /// All of the input, which must be UTF-8.
    ///
    /// - Throws: `FileError`.
    static func readText() throws -> String {
        var bytes: [UInt8] = []
        while try readMore(into: &bytes) {}
        return try bytes.withUnsafeBytes { try TextFile.decode($0, name: "standard input") }
    }

    /// Hands each line to `body` as it arrives, without its newline or carriage return and newline.
    ///
    /// - Throws: `FileError`, or what `body` throws.
    static func forEachLine(_ body: (String) throws -> Void) throws {
        try forEachLine(orInvalid: { throw $0 }, body)
    }

    /// The same; a line that is not UTF-8 goes to `invalid`.
    static func forEachLine(
        orInvalid invalid: (FileError) throws -> Void, _ body: (String) throws -> Void
    ) throws {
        var pending: [UInt8] = []
        var number = 0
        func take(_ line: ArraySlice<UInt8>) throws {
            number += 1
            let line = line.last == 0x0d ? line.dropLast() : line
            let text: String
            do {
                // Only the first line can carry a byte-order mark; elsewhere it is text.
                if number > 1, let valid = String(validating: line, as: UTF8.self) {
                    text = valid
                } else {
                    text = try line.withUnsafeBytes {
                        try TextFile.decode($0, name: "standard input, line \(number)")
                    }
                }
            } catch let error as FileError {
                return try invalid(error)
            }
            try body(text)
        }
        var searched = 0
        while try readMore(into: &pending) {
            var start = 0
            while let end = pending[max(start, searched)...].firstIndex(of: 0x0a) {
                try take(pending[start..<end])
                start = end + 1
            }
            pending.removeFirst(start)
            searched = pending.count
        }
        if !pending.isEmpty { try take(pending[...]) }
    }

    /// Appends what can be read; false at the end of the input, or once the user has asked to stop.
    private static func readMore(into bytes: inout [UInt8]) throws -> Bool {
        let room = 1 << 16
        while true {
            var count = 0
            let old = bytes.count
            bytes.append(contentsOf: repeatElement(0, count: room))
            bytes.withUnsafeMutableBytes {
                count = read(STDIN_FILENO, $0.baseAddress.map { $0 + old }, room)
            }
            let error = errno
            bytes.removeLast(room - max(0, count))
            if count >= 0 { return count > 0 }
            if error == EAGAIN {
                var waiting = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
                poll(&waiting, 1, 1000)
            } else if error != EINTR {
                throw FileError.unreadable(
                    path: "standard input", reason: String(cString: strerror(error)))
            }
            if Interruption.isRequested { return false }
        }
    }
}
