import Foundation
import MonetFoundation
import MonetInsight
import TestSupport
import Testing

/// What the explorer's pages ask for.
@Suite struct ExplorerTests {
    @Test func searchAndDossier() async throws {
        let server = try await RunningServer(withIndex: true)
        let info = try await server.get("/api/info").json
        #expect(info["index"]?["experts"]?.intValue ?? 0 > 0)
        let first = try await server.get("/api/experts?limit=3")
        let rows = try #require(first.json["experts"]?.arrayValue)
        #expect(rows.count == 3 && first.json["has_more"] == true)
        let next = try await server.get("/api/experts?limit=3&offset=3").json["experts"]?.arrayValue ?? []
        #expect(Set((rows + next).compactMap { $0["expert"]?.stringValue }).count == 6)
        let ascending =
            try await server.get("/api/experts?limit=500&sort=max&order=asc").json["experts"]?.arrayValue
            ?? []
        let values = ascending.compactMap { $0["max"]?.doubleValue }
        #expect(values == values.sorted() && values.count > 3)
        let name = try #require(rows[0]["expert"]?.stringValue)
        let dossier = try await server.get("/api/experts/" + name)
        #expect(dossier.json["expert"]?.stringValue == name)
        #expect(dossier.json["activations"]?.arrayValue?.isEmpty == false)
        for (query, param) in [
            ("sort=other", "sort"), ("limit=0", "limit"), ("foo=1", "foo"), ("offset=x", "offset"),
            ("sort=ratio", "sort"), ("token=a&tag=b", "sort"),
        ] {
            let answer = try await server.get("/api/experts?" + query)
            #expect(answer.status == 400 && answer.param == param, "\(query): \(answer.text)")
        }
        for (path, status) in [
            ("/api/experts/0/999999999", 404), ("/api/experts/99/0", 404), ("/api/experts/x/y", 400),
        ] {
            #expect(try await server.get(path).status == status, "\(path)")
        }
    }

    @Test func measurementsOfAnExpert() async throws {
        let server = try await RunningServer(withIndex: true)
        let row = try await server.get("/api/experts?limit=1&sort=frequency").json["experts"]?.arrayValue?
            .first
        let name = try #require(row?["expert"]?.stringValue)
        let scores = try await server.post("/api/experts/\(name)/scores", ["text": "the sea and the shark"])
        #expect(scores.json["tokens"]?.arrayValue?.count == scores.json["scores"]?.arrayValue?.count)
        #expect(scores.json["scores"]?.arrayValue?.contains { ($0.doubleValue ?? 0) > 0 } ?? false)
        let effects = try await server.post("/api/experts/\(name)/effects", [:])
        #expect(effects.status == 200 && effects.json["places"]?.intValue ?? 0 > 0)
        let contexts = try await server.post("/api/experts/\(name)/contexts", [:])
        #expect(contexts.json["activations"]?.arrayValue?.first?["scores"]?.arrayValue != nil)
        let fired = try await server.post(
            "/api/experts/fired", ["text": "the sea and the shark", "limit": 5])
        #expect(fired.json["experts"]?.arrayValue?.count == 5)
        let contrast = try await server.post(
            "/api/experts/fired", ["text": "the sea", "without": "def main ( )", "limit": 500])
        #expect(contrast.json["experts"]?.arrayValue?.isEmpty == false)
        #expect(try await server.post("/api/damage", ["strengths": ["0/1": 0]]).status == 404)
    }

    /// A graph is that of the library, and a test of a node or an edge that of its interventions.
    @Test func graphsAndTheirTests() async throws {
        let server = try await RunningServer(withIndex: true)
        let request: [JSONValue.Member] = [.init("prompt", "the sea and the ship"), .init("nodes", 20)]
        let answer = try await server.post("/api/graph", .object(request))
        try #require(answer.status == 200, "\(answer.text)")
        let (model, tokenizer) = (server.served.model, server.served.tokenizer)
        let ids = try tokenizer.encode("the sea and the ship", addBegin: tokenizer.addsBegin)
        let explained = try ExplainedPrediction(.mostLikely, after: ids, model: model, tokenizer: tokenizer)
        let pass = try LinearizedPass(ids, target: explained.target, model: model)
        let whole = try AttributionGraph(pass, unitCount: 20)
        let graph = whole.pruned()
        #expect(answer.json["target"]?.stringValue == explained.name)
        #expect(abs((answer.json["value"]?.doubleValue ?? .nan) - graph.value) < 1e-4)
        #expect(answer.json["nodes_in_all"]?.intValue == whole.nodes.count)
        let nodes = answer.json["graph"]?["nodes"]?.arrayValue ?? []
        #expect(nodes.count == graph.nodes.count)
        let unit = try #require(graph.nodes.indices.first { graph.unit(of: graph.nodes[$0]) != nil })
        let name = try #require(nodes[unit]["node_id"])
        let removal = try await server.post("/api/graph/test", .object(request + [.init("source", name)]))
        #expect(
            abs((removal.json["predicted"]?.doubleValue ?? .nan) + graph.nodes[unit].contribution) < 1e-4)
        let change = try graph.change(removing: unit, in: pass)
        #expect(abs((removal.json["measured"]?.doubleValue ?? .nan) - change) < 1e-4)
        #expect(removal.json["all_held"]?.doubleValue != nil)
        let edge = try #require(graph.edges.first { graph.canCut(from: $0.source, to: $0.target) })
        let ends = [edge.source, edge.target].map { nodes[$0]["node_id"] ?? .null }
        let cut = try await server.post(
            "/api/graph/test", .object(request + [.init("source", ends[0]), .init("target_node", ends[1])]))
        #expect(abs((cut.json["predicted"]?.doubleValue ?? .nan) + edge.weight) < 1e-4)
        let expected = try graph.change(cutting: edge.source, to: edge.target, in: pass)
        #expect(abs((cut.json["measured"]?.doubleValue ?? .nan) - expected) < 1e-4)

        let target = nodes.last?["node_id"] ?? .null
        for (path, extra, status, param) in [
            ("/api/graph", [.init("metric", "logit("), .init("target", " a")], 400, "metric"),
            ("/api/graph", [.init("metric", "logit(")], 400, "metric"),
            ("/api/graph", [.init("target", "no such token")], 400, "target"),
            ("/api/graph", [.init("nodes", 0)], 400, "nodes"),
            ("/api/graph/test", [.init("source", "9_9_9")], 404, "source"),
            ("/api/graph/test", [.init("source", target)], 400, "source"),
            ("/api/graph/test", [.init("source", name), .init("target_node", name)], 400, "target_node"),
            ("/api/graph/test", [], 400, "source"),
        ] as [(String, [JSONValue.Member], Int, String)] {
            let members = request.filter { own in !extra.contains { $0.key == own.key } } + extra
            let answer = try await server.post(path, .object(members))
            #expect(answer.status == status && answer.param == param, "\(path) \(extra): \(answer.text)")
        }
        let long = String(repeating: "the sea ", count: 60)
        #expect(try await server.post("/api/graph", ["prompt": .string(long)]).param == "prompt")
    }

    /// Notes and tags are texts, whatever they look like to SQL or a browser.
    @Test func notesAndTags() async throws {
        let server = try await RunningServer(withIndex: true)
        let row = try await server.get("/api/experts?limit=1").json["experts"]?.arrayValue?.first
        let name = try #require(row?["expert"]?.stringValue)
        let tags = ["\"; DROP TABLE note; --", "<img src=x onerror=alert(1)>", "100%_", "ja 日本"]
        let stored = try await server.post(
            "/api/experts/\(name)/note",
            [
                "note": "fires on <b>the</b> 'sea'",
                "tags": .array(tags.map { .string($0) } + ["", " 100%_ "]),
            ])
        #expect(stored.json["tags"]?.arrayValue?.compactMap(\.stringValue).sorted() == tags.sorted())
        let dossier = try await server.get("/api/experts/" + name).json
        #expect(dossier["note"] == "fires on <b>the</b> 'sea'")
        for (key, value) in [
            ("tag", tags[0]), ("tag", tags[2]), ("text", "'sea'"), ("text", "100%"), ("text", "DROP"),
        ] {
            let escaped = try #require(value.addingPercentEncoding(withAllowedCharacters: .alphanumerics))
            let found =
                try await server.get("/api/experts?\(key)=\(escaped)").json["experts"]?.arrayValue ?? []
            #expect(found.compactMap { $0["expert"]?.stringValue } == [name], "\(key)=\(value)")
        }
        #expect(try await server.get("/api/experts?text=___").json["experts"] == [])
        #expect(try await server.get("/api/info").json["index"]?["tags"]?.arrayValue?.count == 4)
        let long = try await server.post(
            "/api/experts/\(name)/note", ["note": .string(String(repeating: "a", count: 30000)), "tags": []])
        #expect(long.status == 400 && long.param == "note")
        #expect(
            try await server.post("/api/experts/\(name)/note", ["note": "a\0b", "tags": []]).status == 400)
        #expect(try await server.get("/api/experts?text=%00a").status == 400)
        #expect(
            try await server.post("/api/experts/\(name)/note", ["note": "", "tags": []]).json["tags"] == [])
    }

    /// The document lists every operation that answers, and its schemas are those that are checked.
    @Test func documentOfTheInterface() async throws {
        let server = try await RunningServer(withIndex: true)
        let document = try await server.get("/openapi.json").json
        #expect(document["openapi"] == "3.1.0")
        let paths = try #require(document["paths"]?.members)
        #expect(paths.map(\.key).contains("/v1/chat/completions") && paths.count > 20)
        for path in paths {
            for operation in path.value.members ?? [] {
                let method = operation.key.uppercased()
                let target = path.key.replacing("{model}", with: "small").replacing("{group}", with: "0")
                    .replacing("{index}", with: "1").replacing("{name}", with: "none")
                let answer = try await server.send(
                    method, target, method == "POST" ? Data("5".utf8) : nil, [:])
                let known = operation.value["responses"]?.members?.map(\.key) ?? []
                #expect(known.contains("\(answer.status)"), "\(method) \(target): \(answer.status)")
                if method == "POST" { #expect(answer.status == 400, "\(target)") }
            }
        }
    }
}
