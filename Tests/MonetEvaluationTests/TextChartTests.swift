import Foundation
import MonetEvaluation
import Testing

/// The chart of a terminal: what stands where.
@Suite struct TextChartTests {
    private static func chart(_ values: [(Int, Double)], heldOut: [(Int, Double)] = []) -> TextChart {
        var chart = TextChart()
        for (step, loss) in values { chart.add(step: step, loss: loss) }
        for (step, loss) in heldOut { chart.add(step: step, heldOut: loss) }
        return chart
    }

    @Test func aFallingCurveGoesFromTheTopLeftToTheBottomRight() {
        let lines = Self.chart((0...60).map { ($0, 8 * exp(-Double($0) / 60)) }).lines(width: 40, height: 11)
        #expect(lines.count == 11 && lines.allSatisfy { $0.count <= 40 })
        let cells = lines.dropLast().map { Array($0.drop { $0 != "│" }.dropFirst()) }
        #expect(cells.allSatisfy { $0.count == 31 })
        // An exponential is a straight line on a logarithmic axis: every row has its part of the columns.
        for (row, cells) in cells.enumerated() {
            let columns = cells.indices.filter { cells[$0] != " " }
            let expected = (Double(row) + 0.5) / 10 * 31
            #expect(
                !columns.isEmpty && columns.allSatisfy { abs(Double($0) + 0.5 - expected) < 3 }, "row \(row)")
        }
        #expect(lines[0].contains("8.000") && lines[9].contains("2.943"), "\(lines)")
        #expect(lines[10].contains("0") && lines[10].hasSuffix("step 60"))
    }

    @Test func heldOutLossesAreCircles() {
        let lines = Self.chart([(1, 4), (50, 2), (100, 1)], heldOut: [(50, 4), (100, 1)]).lines(
            width: 60, height: 8)
        let places = lines.enumerated().flatMap { row, line in
            line.enumerated().filter { $0.element == "○" }.map { (row, $0.offset) }
        }
        #expect(places.count == 2 && places[0].0 == 0 && places[1].0 == 6, "\(places)")
        #expect(places[1].1 == 59 && abs(places[0].1 - 34) <= 1, "\(places)")
    }

    @Test func withoutACurveOrRoomThereIsNothing() {
        #expect(Self.chart([]).lines(width: 80, height: 12).isEmpty)
        #expect(Self.chart([(3, 2)]).lines(width: 80, height: 12).isEmpty)
        #expect(Self.chart([(3, 2), (3, 1)]).lines(width: 80, height: 12).isEmpty)
        #expect(Self.chart([(3, .nan), (4, 0), (5, -1)]).lines(width: 80, height: 12).isEmpty)
        for size in [(0, 0), (16, 12), (80, 2), (-5, 9)] {
            #expect(Self.chart([(1, 2), (9, 1)]).lines(width: size.0, height: size.1).isEmpty)
        }
        // Numbers at the edges, as damaged files may have them.
        #expect(Self.chart([(1, 1e-320), (9, 1e300)]).lines(width: 30, height: 5).count == 5)
        #expect(Self.chart([(.min, 2), (.max, 1), (-1, 3)]).lines(width: 30, height: 5).isEmpty)
        // Equal values, and a step back as after a resumed run.
        #expect(Self.chart([(1, 2), (9, 2), (5, 2)]).lines(width: 30, height: 5).count == 5)
    }
}
