import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

@Suite struct RunComparisonTests {
    private func write(_ lines: [String], to folder: String) throws {
        try AtomicFile.createFolder(folder)
        try AtomicFile.write(lines.joined(separator: "\n"), to: folder + "/metrics.jsonl")
    }

    @Test func runsStandSideBySide() throws {
        try withTemporaryFolder { folder in
            try write(
                [
                    #"{"step":1,"tokens":100,"loss":8.5,"unselected_experts":0.25}"#,
                    #"{"step":1,"eval_loss":8.25,"eval_alive_experts":0.75}"#,
                    #"{"step":20,"tokens":2000,"loss":6.125,"unselected_experts":0.5}"#,
                    #"{"step":20,"eval_loss":8.5}"#, #"{"step":21,"to"#,
                ], to: folder + "/monet")
            try write([#"{"step":10,"tokens":1000,"loss":7}"#, ""], to: folder + "/dense & small")
            let comparison = try RunComparison(folders: [folder + "/monet", folder + "/dense & small"])
            let table = comparison.table
            #expect(table[1].prefix(7) == ["monet", "20", "2,000", "6.1250", "8.5000", "8.2500", "75.0%"])
            #expect(table[2].prefix(5) == ["dense & small", "10", "1,000", "7.0000", "–"])
            let svg = comparison.svg(title: "t")
            // Loss, held-out loss, unselected experts and alive experts; two runs have the first.
            #expect(svg.components(separatedBy: "<polyline").count == 6)
            // Two of them have one point, which no line shows.
            #expect(svg.components(separatedBy: "<circle").count == 3)
            #expect(svg.contains("dense &amp; small") && !svg.contains("nan"))
            let page = comparison.page(
                title: "Runs", origin: PageOrigin(command: "monet runs compare", model: "m"))
            #expect(page.contains("<td>6.1250</td>") && page.contains("<svg"))
        }
    }

    /// Damaged files may hold any number.
    @Test(arguments: ["1.7e308", "-1.7e308", "1e-320", "9007199254740992"])
    func extremeNumbersAreDrawn(number: String) throws {
        try withTemporaryFolder { folder in
            try write(
                [
                    #"{"step":1,"loss":2,"grad_norm":1.7e308}"#,
                    #"{"step":9007199254740991,"loss":\#(number),"grad_norm":\#(number)}"#,
                ], to: folder)
            let svg = try RunComparison(folders: [folder]).svg(title: "t")
            #expect(!svg.contains("nan") && !svg.contains("inf"))
        }
    }

    @Test func foldersOfOneNameAreToldApart() throws {
        try withTemporaryFolder { folder in
            for name in ["a", "b"] { try write([#"{"step":1,"loss":7}"#], to: folder + "/\(name)/run") }
            let names = try RunComparison(folders: [folder + "/a/run", folder + "/b/run"]).runs.map(\.name)
            #expect(names == [folder + "/a/run", folder + "/b/run"])
        }
    }

    @Test(
        arguments: [
            ([#"{"step":1,"loss":2}"#, "nonsense", #"{"step":2,"loss":2}"#, ""], "line 2"),
            ([#"{"loss":2}"#], "\"step\""), ([#"{"step":1}"#], "no losses"), ([""], "no losses"),
        ])
    func badMetricsAreNamed(lines: [String], words: String) throws {
        try withTemporaryFolder { folder in
            try write(lines, to: folder)
            do {
                _ = try RunComparison(folders: [folder])
                Issue.record("\(lines) were read")
            } catch let error as EvaluationError {
                #expect("\(error)".contains(words) && "\(error)".contains("metrics.jsonl"), "\(error)")
            }
        }
    }

    @Test func aFolderWithoutARunIsNamed() {
        #expect(throws: FileError.self) { try RunComparison(folders: ["/nowhere"]) }
    }
}
