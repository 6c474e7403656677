import Foundation

/// Plug-in estimates of what an event says of classes, in bits. They are too high, the more so the fewer events there are.
enum MutualInformation {
    /// What one event says of its class: KL(P(class | event) ‖ P(class)).
    ///
    /// - `classes`: of each token; negative ones are left out.
    /// - `totals`: the tokens of each class.
    static func bitsPerEvent(_ events: [Int32], classes: [Int32], totals: [Int]) -> Double {
        var counts: [Int32: Int] = [:]
        for token in events where classes[Int(token)] >= 0 { counts[classes[Int(token)], default: 0] += 1 }
        let (all, fired) = (Double(totals.reduce(0, +)), Double(counts.values.reduce(0, +)))
        guard fired > 0 else { return 0 }
        // In the order of classes, so that rounding does not depend on that of a dictionary.
        return counts.sorted { $0.key < $1.key }.reduce(0) { sum, entry in
            let share = Double(entry.value) / fired
            return sum + share * log2(share * all / Double(totals[Int(entry.key)]))
        }
    }

    /// I(event; class | the token is one of some), times the share of these tokens: what the event adds where, outside of
    /// them, it cannot occur.
    static func bits(
        _ events: [Int32], within tokens: [Int32], classes: [Int32], of all: Int
    ) -> Double {
        var totals: [Int32: Int] = [:]
        var known = 0
        for token in tokens where classes[Int(token)] >= 0 {
            totals[classes[Int(token)], default: 0] += 1
            known += 1
        }
        var counts: [Int32: Int] = [:]
        for token in events where classes[Int(token)] >= 0 { counts[classes[Int(token)], default: 0] += 1 }
        let fired = counts.values.reduce(0, +)
        let share = Double(known) / Double(max(1, all))
        return share * bits(counts, totals: { totals[$0] ?? 0 }, fired: fired, all: known)
    }

    /// From the classes' counts where the event occurs. Classes without one contribute as their total share does.
    private static func bits(
        _ counts: [Int32: Int], totals: (Int32) -> Int, fired: Int, all: Int
    ) -> Double {
        guard fired > 0, fired < all else { return 0 }
        let (n, f) = (Double(all), Double(fired))
        var sum = 0.0
        var rest = all
        // In the order of classes, so that rounding does not depend on that of a dictionary.
        for (label, count) in counts.sorted(by: { $0.key < $1.key }) {
            let total = totals(label)
            let (c, t) = (Double(count), Double(total))
            sum += c / n * log2(c * n / (f * t))
            if total > count { sum += (t - c) / n * log2((t - c) * n / ((n - f) * t)) }
            rest -= total
        }
        // Everything that is left did not meet the event: t / n · log2(n / (n − f)).
        sum += Double(rest) / n * log2(n / (n - f))
        return max(0, sum)
    }
}
