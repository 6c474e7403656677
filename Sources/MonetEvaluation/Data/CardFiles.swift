import Foundation
import MonetFoundation
import Yams

/// What a dataset's card, the `README.md` of the hub, says about which files belong to which split.
struct CardFiles {
    private let listing: DataListing
    private let configurations: [(name: String, files: [(split: String, patterns: [String])])]

    /// Nil without a card that says so.
    init?(_ listing: DataListing) {
        self.listing = listing
        guard let text = try? TextFile.read(listing.root + "/README.md"), text.hasPrefix("---\n") else {
            return nil
        }
        let rest = text.dropFirst(4)
        guard let end = rest.range(of: "\n---"),
            let node = try? compose(yaml: String(rest[..<end.lowerBound])),
            let list = node["configs"]?.sequence
        else { return nil }
        configurations = list.compactMap { item in
            guard let name = item["config_name"]?.string, let files = item["data_files"] else { return nil }
            if let pattern = files.string { return (name, [("train", [pattern])]) }
            return (
                name,
                (files.sequence.map(Array.init) ?? []).compactMap { entry in
                    guard let split = entry["split"]?.string else { return nil }
                    let path = entry["path"]
                    let patterns =
                        path?.string.map { [$0] } ?? path?.sequence.map { $0.compactMap(\.string) } ?? []
                    return (split, patterns)
                }
            )
        }
        guard !configurations.isEmpty else { return nil }
    }

    /// The files of a split that are there; nil if the card does not know it or none is there.
    func files(_ configuration: String?, _ split: String) -> [String]? {
        let chosen =
            configuration.flatMap { name in configurations.first { $0.name == name } }
            ?? (configuration == nil
                ? configurations.first { $0.name == "default" } ?? configurations.first : nil)
        guard let patterns = chosen?.files.first(where: { $0.split == split })?.patterns else { return nil }
        // Files turned into JSONL keep their names but for the extension.
        let found = listing.files.filter { file in
            patterns.contains { pattern in
                Self.matches(file, pattern)
                    || Self.matches(
                        (file as NSString).deletingPathExtension, (pattern as NSString).deletingPathExtension)
            }
        }
        return found.isEmpty ? nil : found
    }

    /// Whether a path fits a pattern with `*` and `?`.
    private static func matches(_ path: String, _ pattern: String) -> Bool {
        let (path, pattern) = (Array(path), Array(pattern))
        var reached: Set<Int> = [0]
        for sign in pattern {
            var next: Set<Int> = []
            for place in reached {
                if sign == "*" {
                    for end in place...path.count { next.insert(end) }
                } else if place < path.count, sign == "?" || path[place] == sign {
                    next.insert(place + 1)
                }
            }
            reached = next
        }
        return reached.contains(path.count)
    }
}
