/// Watches a stream of text for stop strings, and holds back what could still become one.
struct StopFilter {
    private let stops: [String.UTF8View]
    private var pending: [UInt8] = []
    private(set) var found: String?

    init(_ stops: [String]) {
        self.stops = stops.filter { !$0.isEmpty }.map(\.utf8)
    }

    /// Text that is safe to show after `text` came; nothing more once a stop string was found.
    mutating func append(_ text: String) -> String {
        guard found == nil else { return "" }
        if stops.isEmpty { return text }
        pending += text.utf8
        for start in pending.indices {
            if let stop = stops.first(where: { pending[start...].starts(with: $0) }) {
                found = String(stop)
                defer { pending.removeAll() }
                return String(decoding: pending[..<start], as: UTF8.self)
            }
        }
        // The longest end of the text that begins a stop string stays here.
        let held = pending.indices.first { start in
            stops.contains { $0.count > pending.count - start && $0.starts(with: pending[start...]) }
        }
        let end = held ?? pending.count
        defer { pending.removeFirst(end) }
        return String(decoding: pending[..<end], as: UTF8.self)
    }

    /// What was held back, when no more text comes.
    mutating func finish() -> String {
        defer { pending.removeAll() }
        return found == nil ? String(decoding: pending, as: UTF8.self) : ""
    }
}
