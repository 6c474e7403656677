import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// Routing traces and their page.
@Suite struct TraceTests {
    private let ids: [Int32] = [1, 5, 9, 33, 66, 2, 8, 8, 40, 3, 7, 12]

    /// Every score of every listed expert, by a reading of the model's units of its own.
    @Test(arguments: Family.allCases)
    func listedExpertsHaveAllTheirScores(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 31)
        let trace = try RoutingTrace(of: ids, model: model, tokenizer: nil, count: 2)
        var input = ForwardInput([ids])
        input.keepsUnits = true
        var expected: [UnitID: [Int: Float]] = [:]
        for group in try model.forward(input).groups {
            var reader = group.reader()
            for position in ids.indices {
                reader.visit(position) { index, score in
                    expected[UnitID(group: group.group, index: index), default: [:]][position] = score
                }
            }
        }
        let names = Set(trace.tokens.flatMap { $0.groups.flatMap { $0.experts.map(\.expert) } })
        #expect(Set(trace.listed.map(\.expert)) == names && names.count > 3)
        for expert in trace.listed {
            let wanted = try #require(expected[expert.expert])
            #expect(expert.positions == wanted.keys.sorted())
            #expect(zip(expert.positions, expert.scores).allSatisfy { Float($1) == wanted[$0] })
        }
        // Some expert fires where it is not among the strongest.
        let shown = trace.tokens.reduce(0) { $0 + $1.groups.reduce(0) { $0 + $1.experts.count } }
        #expect(trace.listed.reduce(0) { $0 + $1.positions.count } > shown)
    }

    @Test func hostileTextStaysText() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 31)
        let trace = try RoutingTrace(of: ids, model: model, tokenizer: nil, count: 2)
        let hostile = "</script><!--<script>alert(1)</script>{{data}}\\#(data)\u{2028}"
        let expert = try #require(trace.listed.first?.expert)
        let page = trace.html(
            origin: PageOrigin(command: hostile, model: hostile, corpus: hostile),
            topTokens: [expert: [hostile]])
        let start = try #require(page.range(of: #"<script type="application/json" id="trace">"#)).upperBound
        let end = try #require(page.range(of: "</script>", range: start..<page.endIndex)).lowerBound
        let data = String(page[start..<end])
        #expect(!data.contains("<"))
        let json = try JSONValue(parsing: data, source: "page")
        #expect(json["top_tokens"]?[expert.description] == [.string(hostile)])
        #expect(json["listed"]?.members?.count == trace.listed.count)
        #expect(page.contains("<h1>&lt;/script&gt;&lt;!--&lt;script&gt;"))
    }
}
