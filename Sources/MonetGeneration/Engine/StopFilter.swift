/// Watches a stream of text for stop strings, and holds back what could still become one.
struct StopFilter {
    private let stops: [String.UTF8View]
    private var pending: [UInt8] = []
    private(set) var found: String?

    init(_ stops: [String]) {
        self.stops = stops.filter { !$0.isEmpty }.map(\.utf8)
    }

    /// The text that can be shown after `text` was added; empty once a stop string has been found.
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
        // The longest suffix of the text that begins a stop string is held back.
        let held = pending.indices.first { start in
            stops.contains { $0.count > pending.count - start && $0.starts(with: pending[start...]) }
        }
        let end = held ?? pending.count
        defer { pending.removeFirst(end) }
        return String(decoding: pending[..<end], as: UTF8.self)
    }

    /// The text that was held back, when no more text follows.
    mutating func finish() -> String {
        defer { pending.removeAll() }
        return found == nil ? String(decoding: pending, as: UTF8.self) : ""
    }
}
