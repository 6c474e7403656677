import Foundation
import MonetFoundation

/// A folder with the data of tasks: as on the hub (`ORG/NAME/CONFIGURATION/train-00000-of-00001.parquet`, also
/// as JSONL or CSV), or the original files as their authors distribute them.
public struct DatasetFolder: Sendable {
    /// The folder.
    public let path: String

    /// A folder; what is in it is read when a task asks for it.
    public init(_ path: String) { self.path = path }

    /// What a task wants to read.
    struct Request {
        let task: String
        let dataset: String
        let configuration: String?
        let split: String
        /// `data_files` of the task file.
        let files: JSONValue?
        /// The folder of the task file.
        let taskFolder: String
    }

    /// A split's documents, and the path for messages.
    struct Split: Sendable {
        let table: DataTable
        let path: String
    }

    /// The documents of a split.
    ///
    /// - Throws: `TaskError.missingData`, `TaskError.malformedData`, `FileError`, `ParquetError`.
    func split(_ request: Request) throws -> Split {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else {
            throw FileError.unreadable(path: path, reason: "there is no such folder")
        }
        if ["json", "csv", "parquet", "text"].contains(request.dataset), request.files != nil {
            return try named(request)
        }
        var looked: [String] = []
        for root in roots(request) {
            guard let listing = DataListing(root) else {
                looked.append(root.shownPath(in: path))
                continue
            }
            if let files = CardFiles(listing)?.files(request.configuration, request.split) {
                return try read(files.map { root + "/" + $0 }, request)
            }
            if let files = listing.files(request.configuration, request.split, isWhole: root == path) {
                return try read(files.map { root + "/" + $0 }, request)
            }
            looked.append(
                root.shownPath(in: path) + "/" + (request.configuration.map { $0 + "/" } ?? "")
                    + request.split + ".jsonl")
        }
        throw TaskError.missingData(
            task: request.task, dataset: request.dataset + (request.configuration.map { " (\($0))" } ?? ""),
            split: request.split, folder: path, looked: Array(looked.prefix(3)))
    }

    /// Folders that may hold a dataset, most specific first.
    private func roots(_ request: Request) -> [String] {
        let name = request.dataset
        var roots: [String] = []
        if name.hasPrefix("/") || name.hasPrefix(".") {
            roots.append(name)
            roots.append(request.taskFolder + "/" + name)
        }
        let short = (name as NSString).lastPathComponent
        roots += [path + "/" + name]
        roots += ["__", "--", "___"].map { path + "/" + name.replacing("/", with: $0) }
        let hub = path + "/datasets--" + name.replacing("/", with: "--") + "/snapshots"
        roots += ((try? FileManager.default.contentsOfDirectory(atPath: hub)) ?? []).sorted().map {
            hub + "/" + $0
        }
        roots += [path + "/" + short, path + "/" + request.task]
        roots += OriginalData.folders(of: name).map { path + "/" + $0 }
        roots.append(path)
        var seen: Set<String> = []
        return roots.filter { seen.insert($0).inserted }
    }

    /// The files that the task file itself names.
    private func named(_ request: Request) throws -> Split {
        func list(_ value: JSONValue?) -> [String] {
            value?.stringValue.map { [$0] } ?? value?.arrayValue?.compactMap(\.stringValue) ?? []
        }
        var files = list(request.files?[request.split])
        if files.isEmpty, request.split == "train" { files = list(request.files) }
        let found = files.map { file in
            // Files on the hub are kept below the name of their dataset.
            let file = file.hasPrefix("hf://datasets/") ? String(file.dropFirst(14)) : file
            return [file.hasPrefix("/") ? file : path + "/" + file, request.taskFolder + "/" + file, file]
                .first {
                    FileManager.default.fileExists(atPath: $0)
                }
        }
        guard !found.isEmpty, found.allSatisfy({ $0 != nil }) else {
            throw TaskError.missingData(
                task: request.task, dataset: "the file \(files.joined(separator: ", "))",
                split: request.split,
                folder: path, looked: files)
        }
        return try read(found.compactMap { $0 }, request)
    }

    private func read(_ files: [String], _ request: Request) throws -> Split {
        let tables = try files.map { file in
            if let original = try OriginalData.table(
                file, dataset: request.dataset, configuration: request.configuration)
            {
                return original
            }
            let table = try DataTable(path: file)
            return OriginalData.standardized(table, path: file, dataset: request.dataset)
        }
        let all = tables.count == 1 ? tables[0] : DataTable(unifying: tables.flatMap(\.rows))
        let path = files.count == 1 ? files[0] : (files[0] as NSString).deletingLastPathComponent
        guard !all.rows.isEmpty else {
            throw TaskError.emptySplit(task: request.task, split: request.split, path: path)
        }
        return Split(table: all, path: path)
    }
}

extension String {
    fileprivate func shownPath(in folder: String) -> String {
        hasPrefix(folder + "/") ? String(dropFirst(folder.count + 1)) : self
    }
}

/// The files of data below a folder.
struct DataListing {
    let root: String
    /// Paths from the folder on, in order.
    let files: [String]

    /// Nil if there is no such folder.
    init?(_ root: String) {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: root, isDirectory: &isFolder), isFolder.boolValue else {
            return nil
        }
        var found: [String] = []
        func visit(_ folder: String, _ depth: Int) {
            let names = ((try? FileManager.default.contentsOfDirectory(atPath: root + "/" + folder)) ?? [])
                .sorted()
            for name in names where !name.hasPrefix(".") && found.count < 20_000 {
                let place = folder.isEmpty ? name : folder + "/" + name
                var isFolder: ObjCBool = false
                guard FileManager.default.fileExists(atPath: root + "/" + place, isDirectory: &isFolder)
                else { continue }
                if isFolder.boolValue {
                    if depth < 5 { visit(place, depth + 1) }
                } else if Self.isData(name) {
                    found.append(place)
                }
            }
        }
        visit("", 0)
        self.root = root
        files = found
    }

    private static func isData(_ name: String) -> Bool {
        let name = name.lowercased()
        guard !["dataset_infos.json", "dataset_info.json", "state.json", "config.json"].contains(name) else {
            return false
        }
        return [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz"]
            .contains {
                name.hasSuffix($0)
            }
    }

    /// Names under which a split is known.
    static func names(of split: String) -> [String] {
        let known = [
            ["train", "training"], ["validation", "valid", "val", "dev"],
            ["test", "testing", "eval", "evaluation"],
        ]
        // "dev" of MMLU stands beside "val" and is only itself.
        let synonyms = known.first { $0.contains(split) } ?? []
        return [split] + synonyms.filter { $0 != split }
    }

    /// The words of a path: letters between anything else.
    private static func words(_ path: String) -> [String] {
        path.lowercased().split { !$0.isLetter }.map(String.init)
    }

    /// The files of a split of a configuration; nil if there are none.
    ///
    /// - `isWhole`: whether the folder may hold other datasets too, so that a file alone says little, and one in a folder
    ///   of another name nothing.
    func files(_ configuration: String?, _ split: String, isWhole: Bool) -> [String]? {
        let files =
            isWhole
            ? files.filter { path in
                let parts = path.split(separator: "/")
                return parts.count == 1
                    || parts.count == 2
                        && (parts[0] == "data" || configuration.map { parts[0] == $0 } ?? false)
            } : files
        var candidates = files
        if let configuration, !["default", "main"].contains(configuration) {
            // A folder of its name, or files with it in their names.
            let inside = files.filter { ("/" + $0).contains("/" + configuration + "/") }
            let named = files.filter {
                let name = ($0 as NSString).lastPathComponent.lowercased()
                let stem = configuration.lowercased()
                return name.hasPrefix(stem + "-") || name.hasPrefix(stem + "_") || name.hasPrefix(stem + ".")
                    || name.hasSuffix("_" + stem + ".jsonl")
            }
            if !inside.isEmpty {
                candidates = inside.map { $0 }
            } else if !named.isEmpty {
                candidates = named
            } else if isWhole {
                return nil
            } else if let size = configuration.split(separator: "_").last,
                case let sized = files.filter({ $0.lowercased().contains("_\(size).") }), !sized.isEmpty
            {
                candidates = sized + files.filter { !$0.lowercased().contains("train_") }
            }
        }
        for name in Self.names(of: split) {
            let exact = candidates.filter { path in
                let file = (path as NSString).lastPathComponent
                return file.hasPrefix(name + ".") || file.hasPrefix(name + "-")
            }
            let found =
                !exact.isEmpty
                ? exact
                : candidates.filter { path in
                    var rest = path
                    if let configuration, let range = rest.range(of: configuration) {
                        rest.removeSubrange(range)
                    }
                    return Self.words(rest).contains(name)
                }
            if found.isEmpty { continue }
            // Label files are read with what they label; of the same data in two formats, one is enough.
            let byType = Dictionary(grouping: found) { ($0 as NSString).pathExtension.lowercased() }
            return byType.count == 1 ? found : byType["jsonl"] ?? byType["parquet"] ?? byType["json"] ?? found
        }
        // A file alone that no split is named in holds the training split.
        if !isWhole, candidates.count == 1, split == "train" || split == "test" {
            let words = Self.words((candidates[0] as NSString).lastPathComponent)
            let others = ["train", "training", "validation", "valid", "val", "dev", "test", "testing"]
            if !words.contains(where: others.contains) { return candidates }
        }
        return nil
    }
}
