/// What can go wrong with files and their syntax.
public enum FileError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The file cannot be opened, read or mapped.
    case unreadable(path: String, reason: String)
    /// The file cannot be written; what was there before is unchanged.
    case unwritable(path: String, reason: String)
    /// Something is at the path already, and was not to be replaced.
    case alreadyExists(path: String)
    /// What is at the path is not what would be replaced there.
    case notReplaceable(path: String, reason: String)
    /// Another process works on the path.
    case inUse(path: String, owner: String)
    /// Something needs more memory than this process may take.
    case outOfMemory(purpose: String, needed: Int, available: Int)
    /// The text is not JSON, or is JSON that the parser rejects (duplicate keys, NaN).
    case malformedJSON(source: String, offset: Int, reason: String)
    /// The file is not UTF-8 text.
    case notUTF8(path: String, offset: Int)

    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "\(path): cannot be read: \(reason)"
        case .unwritable(let path, let reason): "\(path): cannot be written: \(reason)"
        case .alreadyExists(let path): "\(path): exists already"
        case .notReplaceable(let path, let reason): "\(path): is not replaced: \(reason)"
        case .inUse(let path, let owner): "\(path): another process works on it: \(owner)"
        case .outOfMemory(let purpose, let needed, let available):
            "\(purpose) would take \(needed.byteText) of memory, \(available.byteText) can be had"
        case .malformedJSON(let source, let offset, let reason):
            "\(source): malformed JSON at byte \(offset): \(reason)"
        case .notUTF8(let path, let offset): "\(path): not UTF-8 text (byte \(offset))"
        }
    }
}
