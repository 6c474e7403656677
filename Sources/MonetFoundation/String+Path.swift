// The parts of paths. Foundation's own properties trap on names of one character.
extension String {
    /// The name at the end of a path; the path itself if it has no other part.
    public var lastPathName: String {
        let path = withoutTrailingSlashes
        if path == "/" { return "/" }
        return path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? String(path)
    }

    /// The folder that a path lies in: `.` for a plain name, `/` at the top.
    public var parentFolder: String {
        let path = withoutTrailingSlashes
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// What follows the last dot of a file's name, without the dot; empty if there is none.
    public var fileExtension: String {
        let name = lastPathName
        guard let dot = name.lastIndex(of: "."), dot != name.startIndex else { return "" }
        return String(name[name.index(after: dot)...])
    }

    /// A file's name without its extension.
    public var nameWithoutExtension: String {
        let (name, ending) = (lastPathName, fileExtension)
        return ending.isEmpty ? name : String(name.dropLast(ending.count + 1))
    }

    private var withoutTrailingSlashes: Substring {
        var path = self[...]
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        return path
    }
}
