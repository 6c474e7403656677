import Foundation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

/// What the explorer shows besides the model: an index, a folder of masks, texts to measure damage on, and a folder of
/// results. Nothing outside of these is read.
public struct ExplorerSources: Sendable {
    /// The expert index, open for writing if notes may be stored.
    public var index: ExpertIndex?
    /// The folder in which masks are saved and found.
    public var maskFolder: String?
    /// The corpus whose held-out documents damage is measured on.
    public var corpus: Corpus?
    /// A folder with reports: pages, drawings and JSON.
    public var resultFolder: String?

    /// No sources.
    public init() {}
}

/// The mask files of a folder, by their names without the ending.
struct MaskFolder: Sendable {
    let path: String

    static let ending = ".mask"

    /// The names of the masks, in alphabetical order.
    func names() -> [String] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return files.filter { $0.hasSuffix(Self.ending) }.map { String($0.dropLast(Self.ending.count)) }
            .filter(TextPattern.maskName.matches).sorted()
    }

    /// The file of a name.
    ///
    /// - Throws: `APIError` for a name that is none.
    func file(_ name: String) throws -> String {
        guard TextPattern.maskName.matches(name) else {
            throw APIError.invalid(
                "name", "the name has other characters than letters, digits, '_', '-', '.' and spaces")
        }
        return path + "/" + name + Self.ending
    }

    /// Reads a mask for a model.
    ///
    /// - Throws: `APIError` of status 404 if there is none.
    func mask(_ name: String, for model: MonetLanguageModel) throws -> MaskFile {
        let file = try file(name)
        guard FileManager.default.fileExists(atPath: file) else {
            throw APIError(.notFound, "there is no mask '\(name)'", param: "name", code: "mask_not_found")
        }
        let mask = try MaskFile(contentsOfFile: file, configuration: model.configuration)
        if let origin = mask.model, !model.descends(from: origin) {
            throw APIError.invalid("name", "the mask '\(name)' was made for another model")
        }
        return mask
    }
}

/// The files of a folder of results that a browser can show.
struct ResultFolder: Sendable {
    let path: String

    private static let types = [
        "html": "text/html", "svg": "image/svg+xml", "json": "application/json", "csv": "text/csv",
        "md": "text/plain", "png": "image/png",
    ]
    private static let mostFiles = 2000
    private static let largestFile = 64 << 20

    /// A file below the folder.
    struct File: Sendable {
        let name: String
        let type: String
        let bytes: Int
    }

    /// The files, in alphabetical order.
    func files() -> [File] {
        let root = URL(fileURLWithPath: path, isDirectory: true).resolvingSymlinksInPath()
        guard
            let found = FileManager.default.enumerator(
                at: root, includingPropertiesForKeys: [.isRegularFileKey, .fileSizeKey],
                options: [.skipsHiddenFiles])
        else { return [] }
        var result: [File] = []
        for case let url as URL in found {
            guard result.count < Self.mostFiles else { break }
            let values = try? url.resourceValues(forKeys: [.isRegularFileKey, .fileSizeKey])
            guard values?.isRegularFile ?? false, let type = Self.types[url.pathExtension.lowercased()],
                let size = values?.fileSize, size <= Self.largestFile
            else { continue }
            let own = url.resolvingSymlinksInPath().path
            guard own.hasPrefix(root.path + "/") else { continue }
            result.append(File(name: String(own.dropFirst(root.path.count + 1)), type: type, bytes: size))
        }
        return result.sorted { $0.name < $1.name }
    }

    /// The content of one of the files; only names that `files` lists are opened.
    func content(_ name: String) -> (file: File, data: Data)? {
        guard let file = files().first(where: { $0.name == name }),
            let data = FileManager.default.contents(atPath: path + "/" + file.name)
        else { return nil }
        return (file, data)
    }
}
