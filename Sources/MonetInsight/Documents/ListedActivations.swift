import Foundation
import MonetModel
import MonetProcesses

/// The scores of a batch's units as lists, which another process computed.
struct ListedActivations: UnitActivations {
    let group: Int
    /// Where each row's entries begin, and the end.
    private let starts: [Int32]
    private let units: [Int32]
    private let scores: [Float]

    private init(group: Int, starts: [Int32], units: [Int32], scores: [Float]) {
        (self.group, self.starts, self.units, self.scores) = (group, starts, units, scores)
    }

    func reader() -> any UnitScoreReader { Reader(activations: self) }

    func lastRows(_ count: Int) -> any UnitActivations {
        let first = Int(starts[max(0, starts.count - 1 - count)])
        return ListedActivations(
            group: group, starts: starts.suffix(count + 1).map { $0 - Int32(first) },
            units: Array(units[first...]), scores: Array(scores[first...]))
    }

    private struct Reader: UnitScoreReader {
        let activations: ListedActivations

        func visit(_ row: Int, _ body: (_ index: Int, _ score: Float) -> Void) {
            for entry in Int(activations.starts[row])..<Int(activations.starts[row + 1]) {
                body(Int(activations.units[entry]), activations.scores[entry])
            }
        }
    }

    /// The activations of all groups as bytes.
    static func encoded(_ groups: [any UnitActivations], rows: Int) -> Data {
        var encoder = NumberEncoder()
        encoder.append([Int32(groups.count)])
        for activations in groups {
            var reader = activations.reader()
            var starts: [Int32] = [0]
            var (units, scores) = ([Int32](), [Float]())
            for row in 0..<rows {
                reader.visit(row) { index, score in
                    units.append(Int32(index))
                    scores.append(score)
                }
                starts.append(Int32(units.count))
            }
            encoder.append([Int32(activations.group)])
            encoder.append(starts)
            encoder.append(units)
            encoder.append(scores)
        }
        return encoder.data
    }

    /// - `layout`: of the model, within whose units the lists must be.
    /// - Throws: `ProcessError.unexpectedAnswer`.
    static func decoded(_ data: Data, rows: Int, rank: Int, layout: UnitLayout) throws
        -> [any UnitActivations]
    {
        var decoder = NumberDecoder(data, rank: rank)
        func fail(_ found: String) -> ProcessError {
            .unexpectedAnswer(rank: rank, expected: "the scores of \(rows) tokens", found: found)
        }
        guard let count = try decoder.next(Int32.self).first, (0...Int32(layout.groups)).contains(count)
        else {
            throw fail("another number of groups")
        }
        return try (0..<count).map { _ in
            let group = try decoder.next(Int32.self)
            let starts = try decoder.next(Int32.self)
            let units = try decoder.next(Int32.self)
            let scores = try decoder.next(Float.self)
            guard let group = group.first, (0..<Int32(layout.groups)).contains(group),
                starts.count == rows + 1,
                starts.first == 0, zip(starts, starts.dropFirst()).allSatisfy({ $0 <= $1 }),
                units.count == scores.count, starts.last == Int32(units.count),
                units.allSatisfy({ (0..<Int32(layout.unitsPerGroup)).contains($0) })
            else { throw fail("lists of other sizes") }
            return ListedActivations(group: Int(group), starts: starts, units: units, scores: scores)
        }
    }
}
