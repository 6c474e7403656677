import Foundation
import MonetFoundation

/// Writing to standard error: messages, progress.
enum StandardError {
    /// Whether it is a terminal.
    static var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }

    static func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}

/// Writing results to standard output, unbuffered so that the reader of a pipe gets them at once.
enum StandardOutput {
    /// Whether it is a terminal.
    static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

    static func write(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }

    /// One JSON document, indented.
    static func write(_ json: JSONValue) { write(json.serialized(pretty: true) + "\n") }
}

/// Reading standard input.
enum StandardInput {
    /// Whether it is a terminal.
    static var isTerminal: Bool { isatty(STDIN_FILENO) == 1 }

    /// All of the input, which must be UTF-8.
    static func readText() throws -> String {
        let data = FileHandle.standardInput.readDataToEndOfFile()
        return try data.withUnsafeBytes { try TextFile.decode($0, name: "standard input") }
    }

    /// Hands each line to `body` as it arrives, without its newline.
    static func forEachLine(_ body: (String) throws -> Void) throws {
        var pending = Data()
        var number = 0
        func take(_ line: Data) throws {
            number += 1
            let name = "standard input, line \(number)"
            let isFirst = number == 1
            // Only the first line can carry a byte-order mark; elsewhere it is text.
            let text: String
            if isFirst {
                text = try line.withUnsafeBytes { try TextFile.decode($0, name: name) }
            } else if let valid = String(validating: line, as: UTF8.self) {
                text = valid
            } else {
                text = try line.withUnsafeBytes { try TextFile.decode($0, name: name) }
            }
            try body(text)
        }
        while true {
            let chunk = FileHandle.standardInput.availableData
            if chunk.isEmpty { break }
            pending.append(chunk)
            var start = pending.startIndex
            while let end = pending[start...].firstIndex(of: 0x0a) {
                try take(pending[start..<end])
                start = end + 1
            }
            pending = Data(pending[start...])
        }
        if !pending.isEmpty { try take(pending) }
    }
}
