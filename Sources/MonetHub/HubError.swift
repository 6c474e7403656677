/// What can go wrong with a download from the hub.
public enum HubError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A name that is not ORG/NAME.
    case invalidName(String)
    /// `HF_HUB_OFFLINE` forbids it.
    case offline
    /// The hub refuses: a private or gated repository, or a wrong token.
    case notAllowed(name: String, status: Int, hasToken: Bool)
    /// The hub has no such repository, revision or file.
    case notFound(what: String)
    /// The hub did not answer, or not as expected.
    case failed(url: String, attempts: Int, reason: String)
    /// A file that arrived is another one than the hub said.
    case wrongContent(file: String, expected: String, found: String)
    /// A file's name that would lie outside of the cache.
    case invalidFile(name: String)
    /// A repository without a checkpoint that this package can read.
    case noCheckpoint(name: String, files: [String])

    public var description: String {
        switch self {
        case .invalidName(let name): "'\(name)' is no name of the hub, expected ORG/NAME"
        case .offline: "HF_HUB_OFFLINE is set, which forbids downloads"
        case .notAllowed(let name, let status, let hasToken):
            "\(name): the hub answers \(status): "
                + (hasToken
                    ? "the token in HF_TOKEN has no access to it"
                    : "it is private or gated; a token with access can be given in HF_TOKEN")
        case .notFound(let what): "the hub has no \(what)"
        case .failed(let url, let attempts, let reason):
            "\(url): \(reason)" + (attempts > 1 ? " (after \(attempts) attempts)" : "")
        case .wrongContent(let file, let expected, let found):
            "\(file): the content that arrived is damaged: its hash is \(found), expected \(expected); it was deleted"
        case .invalidFile(let name): "the hub names a file '\(name)', which would lie outside of the cache"
        case .noCheckpoint(let name, let files):
            "\(name) has no checkpoint in safetensors; it has \(files.prefix(12).joined(separator: ", "))"
        }
    }
}
