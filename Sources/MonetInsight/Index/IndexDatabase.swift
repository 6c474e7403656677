import GRDB

/// A connection to an index.
///
/// The queue object outlives it. To free one, libdispatch needs a thread, and where the system grants none it
/// waits for one without end; the database itself is closed.
final class IndexDatabase: Sendable {
    let queue: DatabaseQueue

    init(path: String, configuration: Configuration) throws {
        queue = try DatabaseQueue(path: path, configuration: configuration)
    }

    deinit {
        try? queue.close()
        _ = Unmanaged.passRetained(queue)
    }
}
