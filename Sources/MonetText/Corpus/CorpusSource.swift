import Foundation
import MonetFoundation

/// A text with its label.
public struct Document: Sendable, Equatable {
    /// UTF-8 text.
    public var text: String
    /// The domain, language or other label.
    public var label: String
    /// The complete JSON object of a JSONL line, which may hold further labels and numbers.
    public var columns: JSONValue?

    /// A labelled text.
    public init(text: String, label: String, columns: JSONValue? = nil) {
        self.text = text
        self.label = label
        self.columns = columns
    }
}

/// Where documents come from: a text file (one document), a JSONL file (one per line) or a folder of
/// either, read recursively in the order of names.
public struct CorpusSource: Sendable {
    /// The file or folder.
    public var path: String
    /// The label of documents that bring none; by default the file's name or the folder below `path`.
    public var label: String?
    /// The JSONL column with the text.
    public var textKey: String
    /// The JSONL column with the label.
    public var labelKey: String
    /// File extensions to read in folders; empty means all.
    public var extensions: [String]
    /// Whether files and lines that are not UTF-8 are skipped instead of being errors.
    public var skipsInvalid: Bool

    /// Describes a source.
    public init(
        path: String, label: String? = nil, textKey: String = "text", labelKey: String = "label",
        extensions: [String] = [], skipsInvalid: Bool = false
    ) {
        self.path = path
        self.label = label
        self.textKey = textKey
        self.labelKey = labelKey
        self.extensions = extensions
        self.skipsInvalid = skipsInvalid
    }

    /// Calls `body` with every document.
    ///
    /// - Throws: `FileError`, `TextError.malformedSource`, or what `body` throws.
    public func forEachDocument(_ body: (Document) throws -> Void) throws {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw FileError.unreadable(path: path, reason: "there is no such file or folder")
        }
        if !isFolder.boolValue { return try readFile(path, defaultLabel: label ?? stem(path), body) }
        guard let names = FileManager.default.enumerator(atPath: path) else {
            throw FileError.unreadable(path: path, reason: "the folder cannot be listed")
        }
        var files: [String] = []
        while let name = names.nextObject() as? String {
            if !extensions.isEmpty, !extensions.contains(name.fileExtension) { continue }
            if name.split(separator: "/").contains(where: { $0.hasPrefix(".") }) { continue }
            var isInnerFolder: ObjCBool = false
            let full = path + "/" + name
            if FileManager.default.fileExists(atPath: full, isDirectory: &isInnerFolder),
                !isInnerFolder.boolValue
            {
                files.append(name)
            }
        }
        for name in files.sorted() {
            let parts = name.split(separator: "/")
            let fallback = label ?? (parts.count > 1 ? String(parts[0]) : stem(name))
            try readFile(path + "/" + name, defaultLabel: fallback, body)
        }
    }

    private func stem(_ path: String) -> String {
        path.nameWithoutExtension
    }

    private func readFile(_ path: String, defaultLabel: String, _ body: (Document) throws -> Void) throws {
        let file = try MappedFile(path: path)
        let isLines = path.hasSuffix(".jsonl") || path.hasSuffix(".ndjson")
        if !isLines {
            do {
                let text = try TextFile.decode(file.bytes, name: path)
                if !text.isEmpty { try body(Document(text: text, label: defaultLabel)) }
            } catch FileError.notUTF8 where skipsInvalid {}
            return
        }
        var start = 0
        var number = 0
        while start < file.bytes.count {
            var end = start
            while end < file.bytes.count, file.bytes[end] != UInt8(ascii: "\n") { end += 1 }
            number += 1
            let line = UnsafeRawBufferPointer(rebasing: file.bytes[start..<end])
            start = end + 1
            if line.allSatisfy({ $0 == 0x20 || $0 == 0x0d || $0 == 0x09 }) { continue }
            let json: JSONValue
            do {
                json = try JSONValue(parsing: line, source: "\(path), line \(number)")
            } catch let error as FileError {
                if skipsInvalid { continue }
                throw error
            }
            guard let text = json[textKey]?.stringValue else {
                throw TextError.malformedSource(
                    path: path, line: number, reason: "no text under \"\(textKey)\"")
            }
            if text.isEmpty { continue }
            let own = json[labelKey].flatMap { $0.stringValue ?? ($0.isNull ? nil : $0.serialized()) }
            try body(Document(text: text, label: label ?? own ?? defaultLabel, columns: json))
        }
    }
}
