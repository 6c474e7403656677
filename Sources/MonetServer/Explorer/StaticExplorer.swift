import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel

/// The part of the explorer that only reads, as a folder of files that a browser opens from a disk.
///
///     try StaticExplorer(index: index).write(to: "experts") { done, total in true }
///
/// Data are scripts, because a page that was opened from a disk may not fetch files.
public struct StaticExplorer {
    private let index: ExpertIndex
    private let model: MonetLanguageModel?
    private let backend: any Backend
    /// Experts of each list: the most frequent ones, and the specialists of each label.
    public var expertsPerList = 200
    /// A name for the page's head.
    public var name: String

    /// What such a folder holds.
    public static let folder = FolderKind(name: "explorer", mark: "explorer.js") { name in
        ["index.html", "explorer.js", "explorer.css"].contains(name)
            || (name.hasPrefix("data-api-") && name.hasSuffix(".js"))
    }

    /// - `model`: colours contexts by the experts' scores, which takes a while; nil leaves them plain.
    public init(index: ExpertIndex, model: MonetLanguageModel? = nil, backend: any Backend = CPUBackend())
        throws
    {
        if let model { try index.require(model) }
        (self.index, self.model, self.backend) = (index, model, backend)
        name = URL(fileURLWithPath: index.modelPath).lastPathComponent
    }

    /// Writes the folder.
    ///
    /// - `progress`: called after every expert with the number done and all; false stops, and nothing is written.
    /// - Throws: `FileError`, `InsightError`, `CancellationError`.
    public func write(
        to path: String, replacing: Bool = false,
        progress: (_ done: Int, _ total: Int) -> Bool = { _, _ in true }
    ) throws {
        var query = ExpertQuery()
        query.limit = expertsPerList
        var lists = [("api/experts", try index.find(query))]
        for (number, label) in index.labelSets.flatMap(\.labels).enumerated() {
            query.label = label
            query.minimumCount = SpecialistCriterion().minimumCount
            lists.append(("api/experts/label/\(number)", try index.find(query)))
        }
        var seen: Set<UnitID> = []
        let experts = lists.flatMap(\.1).map(\.expert).filter { seen.insert($0).inserted }
        try AtomicFile.writeFolder(path, replacing: replacing ? Self.folder : nil) { folder in
            try writePage(to: folder)
            for (name, found) in lists {
                try write(
                    ["experts": .array(try ExplorerEndpoints.rows(found, index)), "has_more": false],
                    as: name,
                    to: folder)
            }
            for (place, expert) in experts.enumerated() {
                var dossier = try index.dossier(of: expert, context: 12, activations: 12)
                if let model { try index.measureContexts(of: &dossier, model: model, backend: backend) }
                try write(try ExplorerEndpoints.json(dossier, index), as: "api/experts/\(expert)", to: folder)
                guard progress(place + 1, experts.count) else { throw CancellationError() }
            }
        }
    }

    private func writePage(to folder: String) throws {
        let units = index.units
        let layers = units.layersOfGroup.map { JSONValue.string("\($0.lowerBound)–\($0.upperBound)") }
        try write(
            [
                "model": .string(name), "units": .string(units.kind.rawValue),
                "groups": .integer(units.groups),
                "layers": .array(layers), "units_per_group": .integer(units.unitsPerGroup),
                "index": try ExplorerEndpoints.json(index),
            ], as: "api/info", to: folder)
        let page = String(decoding: ExplorerPage.page, as: UTF8.self)
            .replacingOccurrences(
                of: "<script type=\"module\" src=\"main.js\"></script>",
                with: "<script defer src=\"explorer.js\"></script>")
        try AtomicFile.write(page, to: folder + "/index.html")
        try AtomicFile.write(
            String(decoding: ExplorerPage.style.1, as: UTF8.self), to: folder + "/explorer.css")
        try AtomicFile.write(ExplorerPage.bundle, to: folder + "/explorer.js")
    }

    private func write(_ value: JSONValue, as name: String, to folder: String) throws {
        let key = JSONValue.string(name).serialized()
        try AtomicFile.write(
            "(window.monetData ??= {})[\(key)] = \(value.serialized());\n",
            to: folder + "/data-" + name.replacingOccurrences(of: "/", with: "-") + ".js")
    }
}

extension ExplorerPage {
    /// All scripts as one that is no module: browsers load modules from servers only. The order is that of their
    /// imports, and no two have a name in common.
    fileprivate static var bundle: String {
        let parts = scripts.map { script in
            String(decoding: script.bytes, as: UTF8.self).split(
                separator: "\n", omittingEmptySubsequences: false
            )
            .filter { !$0.hasPrefix("import ") }
            .map { $0.hasPrefix("export ") ? $0.dropFirst("export ".count) : $0 }
            .joined(separator: "\n")
        }
        return "window.monetStatic = true;\n(() => {\n\"use strict\";\n" + parts.joined(separator: "\n")
            + "\n})();\n"
    }
}
