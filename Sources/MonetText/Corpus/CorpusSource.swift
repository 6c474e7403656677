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

/// What a source holds and was not read.
public struct SourceSkips: Sendable, Equatable {
    /// Files that are not UTF-8.
    public var files = 0
    /// Lines of JSONL files that are not JSON.
    public var lines = 0
    /// Links that lead nowhere, or back to a folder that contains them.
    public var links = 0

    /// Nothing.
    public init() {}

    /// Adds another source's.
    public static func += (a: inout SourceSkips, b: SourceSkips) {
        a.files += b.files
        a.lines += b.lines
        a.links += b.links
    }
}

/// Where documents come from: a text file (one document), a JSONL file (one per line), a JSON file with an array of
/// objects (one per object), or a folder of these, read recursively in the order of names.
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
    /// - Returns: what was skipped.
    /// - Throws: `FileError`, `TextError.malformedSource`, or what `body` throws.
    @discardableResult
    public func forEachDocument(_ body: (Document) throws -> Void) throws -> SourceSkips {
        var skips = SourceSkips()
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw FileError.unreadable(path: path, reason: "there is no such file or folder")
        }
        if !isFolder.boolValue {
            try readFile(path, defaultLabel: label ?? stem(path), &skips, body)
            return skips
        }
        var files: [String] = []
        try list("", above: [], into: &files, &skips)
        for name in files.sorted() {
            let parts = name.split(separator: "/")
            let fallback = label ?? (parts.count > 1 ? String(parts[0]) : stem(name))
            try readFile(path + "/" + name, defaultLabel: fallback, &skips, body)
        }
        return skips
    }

    /// Lists the files below a folder, also through links; `above` are the folders that contain it.
    private func list(
        _ folder: String, above: Set<FolderID>, into files: inout [String], _ skips: inout SourceSkips
    ) throws {
        let full = folder.isEmpty ? path : path + "/" + folder
        guard let id = FolderID(full), !above.contains(id) else {
            skips.links += 1
            return
        }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: full).sorted()
        } catch {
            throw FileError.unreadable(path: full, reason: "the folder cannot be listed")
        }
        for name in names where !name.hasPrefix(".") {
            let inner = folder.isEmpty ? name : folder + "/" + name
            var isFolder: ObjCBool = false
            if !FileManager.default.fileExists(atPath: path + "/" + inner, isDirectory: &isFolder) {
                skips.links += 1
            } else if isFolder.boolValue {
                try list(inner, above: above.union([id]), into: &files, &skips)
            } else if extensions.isEmpty
                || extensions.contains(where: { $0.lowercased() == name.fileExtension.lowercased() })
            {
                files.append(inner)
            }
        }
    }

    /// What makes two paths the same folder.
    private struct FolderID: Hashable {
        let device: UInt64
        let number: UInt64

        init?(_ path: String) {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            (device, number) = (UInt64(status.st_dev), UInt64(status.st_ino))
        }
    }

    private func stem(_ path: String) -> String {
        path.nameWithoutExtension
    }

    private func readFile(
        _ path: String, defaultLabel: String, _ skips: inout SourceSkips,
        _ body: (Document) throws -> Void
    ) throws {
        // A pipe in a folder would have to be waited for; one that is named is meant.
        let file = try MappedFile(path: path, readsStreams: path == self.path)
        let ending = path.fileExtension.lowercased()
        if ["jsonl", "ndjson"].contains(ending)
            || (path.hasPrefix("/dev/") || ending.isEmpty) && isLines(file)
        {
            return try readLines(file, defaultLabel: defaultLabel, &skips, body)
        }
        if ending == "json", let records = try records(of: file) {
            for (place, record) in records.enumerated() {
                try read(record, "\(path), element \(place)", line: nil, defaultLabel: defaultLabel, body)
            }
            return
        }
        do {
            let text = try TextFile.decode(file.bytes, name: path)
            if !text.isEmpty { try body(Document(text: text, label: defaultLabel)) }
        } catch FileError.notUTF8 where skipsInvalid {
            skips.files += 1
        }
    }

    /// Whether a file without an ending, such as a pipe, holds JSONL: its first line is an object with a text.
    private func isLines(_ file: MappedFile) -> Bool {
        let line = file.bytes.prefix { $0 != UInt8(ascii: "\n") }
        guard line.first == UInt8(ascii: "{"),
            let json = try? JSONValue(parsing: UnsafeRawBufferPointer(rebasing: line), source: file.path)
        else { return false }
        return json[textKey]?.stringValue != nil
    }

    /// The elements of a JSON file that is a list of objects; nil for other JSON, which is read as text.
    private func records(of file: MappedFile) throws -> [JSONValue]? {
        guard let json = try? JSONValue(parsing: file.bytes, source: file.path),
            let list = json.arrayValue, !list.isEmpty, list.allSatisfy({ $0.members != nil })
        else { return nil }
        return list
    }

    private func readLines(
        _ file: MappedFile, defaultLabel: String, _ skips: inout SourceSkips,
        _ body: (Document) throws -> Void
    ) throws {
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
                json = try JSONValue(parsing: line, source: "\(file.path), line \(number)")
            } catch let error as FileError {
                guard skipsInvalid else { throw error }
                skips.lines += 1
                continue
            }
            try read(json, file.path, line: number, defaultLabel: defaultLabel, body)
        }
    }

    private func read(
        _ json: JSONValue, _ origin: String, line: Int?, defaultLabel: String,
        _ body: (Document) throws -> Void
    ) throws {
        guard let text = json[textKey]?.stringValue else {
            throw TextError.malformedSource(path: origin, line: line, reason: "no text under \"\(textKey)\"")
        }
        if text.isEmpty { return }
        let own = json[labelKey]?.label
        try body(Document(text: text, label: label ?? own ?? defaultLabel, columns: json))
    }
}

extension JSONValue {
    /// The value of a column as a label; nil for null.
    package var label: String? { stringValue ?? (isNull ? nil : serialized()) }
}
