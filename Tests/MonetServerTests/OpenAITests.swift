import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetModel
import TestSupport
import Testing

/// OpenAI's interface, by a real client of a real server.
@Suite struct OpenAITests {
    @Test func modelsAndHealth() async throws {
        let server = try await RunningServer()
        let models = try await server.get("/v1/models")
        let names = models.json["data"]?.arrayValue?.compactMap { $0["id"]?.stringValue }
        #expect(names == ["small", "small:without <b>some</b>"])
        #expect(try await server.get("/v1/models/small").json["id"] == "small")
        #expect(try await server.get("/v1/models/other").status == 404)
        let edited = "/v1/models/small:without%20%3Cb%3Esome%3C%2Fb%3E"
        #expect(try await server.get(edited).json["id"] == "small:without <b>some</b>")
        #expect(try await server.get("/health").json["status"] == "ok")
        let metrics = try await server.get("/metrics")
        #expect(metrics.text.contains("monet_http_requests_total{path=\"/v1/models\",status=\"200\"} 1"))
        #expect(try await server.get("/nothing").json["error"]?["code"] == "not_found")
        #expect(try await server.get("/v1/completions").status == 405)
    }

    /// A completion's text and log-probabilities are those of the generator alone.
    @Test func completionsAreTheEnginesOwn() async throws {
        let server = try await RunningServer()
        let body: JSONValue = [
            "prompt": "the sea", "max_tokens": 9, "seed": 5, "logprobs": 2, "temperature": 0.9,
            "ignore_eos": true,
        ]
        let answer = try await server.post("/v1/completions", body)
        #expect(answer.status == 200)
        let choice = try #require(answer.json["choices"]?.arrayValue?.first)
        var settings = GenerationSettings()
        settings.maxNewTokens = 9
        settings.endTokenIDs = []
        settings.sampling.temperature = 0.9
        settings.sampling.topP = 1
        settings.sampling.seed = 5
        let tokenizer = server.served.tokenizer
        let ids = try tokenizer.encode("the sea", addBegin: tokenizer.addsBegin)
        let expected = try TextGenerator(
            model: server.served.model, tokenizer: tokenizer, backend: CPUBackend(isBatchInvariant: true)
        ).generate(ids, settings: settings)
        #expect(choice["text"]?.stringValue == expected.text)
        let logs = choice["logprobs"]?["token_logprobs"]?.arrayValue?.map { $0.doubleValue }
        #expect(logs == expected.tokens.map { $0.logProbability })
        #expect(answer.json["usage"]?["completion_tokens"] == 9)
        #expect(answer.json["usage"]?["prompt_tokens"]?.intValue == ids.count)
        // Streamed, it is the same text in pieces, with the usage in a last chunk.
        let streamed = try await server.post(
            "/v1/completions",
            .object(
                (body.members ?? []) + [
                    .init("stream", true), .init("stream_options", ["include_usage": true]),
                ]))
        #expect(streamed.headers["content-type"]?.hasPrefix("text/event-stream") ?? false)
        #expect(streamed.text.hasSuffix("data: [DONE]\n\n"))
        let pieces = streamed.events.compactMap { $0["choices"]?.arrayValue?.first?["text"]?.stringValue }
        #expect(pieces.joined() == expected.text)
        #expect(streamed.events.last?["usage"]?["completion_tokens"] == 9)
    }

    /// What lm-evaluation-harness sends: ids scored with echo, one token generated.
    @Test(arguments: [0, 1])
    func promptsAreEchoedWithScores(generated: Int) async throws {
        let server = try await RunningServer()
        let lists: [[Int]] = [[1, 20, 30, 40], [7, 8]]
        let answer = try await server.post(
            "/v1/completions",
            [
                "model": "small", "prompt": .array(lists.map { .array($0.map { .integer($0) }) }),
                "temperature": 0,
                "max_tokens": .integer(generated), "logprobs": 1, "echo": true, "seed": 1234,
            ])
        let choices = try #require(answer.json["choices"]?.arrayValue)
        try #require(choices.count == 2)
        for (choice, list) in zip(choices, lists) {
            let own = try #require(choice["logprobs"]?["token_logprobs"]?.arrayValue)
            let top = try #require(choice["logprobs"]?["top_logprobs"]?.arrayValue)
            #expect(own.count == list.count + generated && top.count == own.count)
            #expect(own[0] == .null && top[0] == .null)
            let logits = ReferenceModel(server.served.model)([list.map { Int32($0) }]).logits
            let width = server.served.model.configuration.vocabularySize
            for place in 1..<list.count {
                let row = Array(logits.values[((place - 1) * width)..<(place * width)])
                let largest = row.max() ?? 0
                let sum = largest + log(row.reduce(0) { $0 + exp($1 - largest) })
                let value = try #require(own[place].doubleValue)
                #expect(abs(value - (row[list[place]] - sum)) < 1e-4)
                let best = try #require(top[place].members?.compactMap { $0.value.doubleValue }.max())
                // Clients compare both for equality to see whether the token was the most likely one.
                #expect((best == value) == (row[list[place]] == largest))
            }
        }
    }

    /// The begin token that the server adds to a text is context, no part of what is echoed.
    @Test func addedBeginTokensAreNotEchoed() async throws {
        let server = try await RunningServer()
        let tokenizer = server.served.tokenizer
        let plain = try tokenizer.encode("the sea")
        for (prompt, count) in [
            ("the sea", plain.count), ("<s>the sea", plain.count + 1), ("<s> the sea", plain.count + 1),
        ] {
            let answer = try await server.post(
                "/v1/completions", ["prompt": .string(prompt), "max_tokens": 0, "logprobs": 0, "echo": true])
            let logs = answer.json["choices"]?.arrayValue?.first?["logprobs"]?["token_logprobs"]?.arrayValue
            #expect(
                logs?.count == (tokenizer.addsBegin || !prompt.hasPrefix("<s>") ? count : count), "\(prompt)")
        }
    }

    @Test func choicesHaveTheirOwnSeeds() async throws {
        let server = try await RunningServer()
        func texts(_ body: JSONValue) async throws -> [String] {
            try await server.post("/v1/completions", body).json["choices"]?.arrayValue?.compactMap {
                $0["text"]?.stringValue
            } ?? []
        }
        let all = try await texts([
            "prompt": ["the sea", "a shark"], "n": 3, "seed": 10, "max_tokens": 8, "ignore_eos": true,
        ])
        try #require(all.count == 6)
        let fifth = try await texts(["prompt": "a shark", "seed": 11, "max_tokens": 8, "ignore_eos": true])
        #expect(fifth == [all[4]])
        let best = try await server.post(
            "/v1/completions",
            ["prompt": "the sea", "best_of": 3, "seed": 10, "max_tokens": 8, "ignore_eos": true])
        #expect(all[..<3].contains(best.json["choices"]?.arrayValue?.first?["text"]?.stringValue ?? ""))
        #expect(best.json["usage"]?["completion_tokens"] == 24)
    }

    @Test func conversations() async throws {
        let server = try await RunningServer()
        let messages: JSONValue = [["role": "user", "content": [["type": "text", "text": "the sea"]]]]
        let prompt = try await server.post("/apply-template", ["messages": messages])
        #expect(prompt.json["prompt"] == "User: the sea\nAssistant:")
        let answer = try await server.post(
            "/v1/chat/completions",
            [
                "messages": messages, "max_tokens": 6, "seed": 3, "logprobs": true, "top_logprobs": 2,
                "ignore_eos": true,
            ])
        let choice = try #require(answer.json["choices"]?.arrayValue?.first)
        let tokens = try #require(choice["logprobs"]?["content"]?.arrayValue)
        #expect(tokens.count == 6 && tokens.allSatisfy { $0["top_logprobs"]?.arrayValue?.count == 2 })
        let streamed = try await server.post(
            "/v1/chat/completions",
            ["messages": messages, "max_tokens": 6, "seed": 3, "stream": true, "ignore_eos": true])
        let deltas = streamed.events.compactMap {
            $0["choices"]?.arrayValue?.first?["delta"]?["content"]?.stringValue
        }
        #expect(deltas.joined() == choice["message"]?["content"]?.stringValue)
        #expect(streamed.events.first?["choices"]?.arrayValue?.first?["delta"]?["role"] == "assistant")
    }

    @Test func tokenizerOfEvaluationHarnesses() async throws {
        let server = try await RunningServer()
        let info = try await server.get("/tokenizer_info").json
        let begin = try #require(info["bos_token"]?.stringValue)
        let ids = try await server.post("/tokenize", ["prompt": .string(begin), "add_special_tokens": false])
        #expect(ids.json["tokens"] == [.integer(Int(server.served.tokenizer.beginID ?? -1))])
        let text = try await server.post("/tokenize", ["prompt": "the sea", "add_special_tokens": false])
        let back = try await server.post("/detokenize", ["tokens": text.json["tokens"] ?? []])
        #expect(back.json["prompt"] == "the sea")
    }

    /// A forced expert fires on every token with the score that is added, for this request alone.
    @Test func expertsAreForced() async throws {
        let server = try await RunningServer()
        func scores(_ steer: JSONValue) async throws -> [Double] {
            let answer = try await server.post(
                "/v1/completions",
                [
                    "prompt": "the sea and the shark", "max_tokens": 0, "echo": true,
                    "monet": ["steer": steer, "unit_scores": ["0/5"]],
                ])
            try #require(answer.status == 200, "\(answer.text)")
            let choice = try #require(answer.json["choices"]?.arrayValue?.first)
            return (choice["monet"]?["units"]?.arrayValue ?? []).flatMap { units in
                (units.arrayValue ?? []).compactMap { $0["score"]?.doubleValue }
            }
        }
        let (before, forced) = (try await scores([:]), try await scores(["0/5": 2.5]))
        #expect(!before.isEmpty && before.count == forced.count)
        // The first router reads the same in both.
        for (own, other) in zip(before, forced) { #expect(abs(other - own - 2.5) < 1e-5) }
        let some = try await scores(["0/5": ["score": 2.5, "positions": "1-2"]])
        for (place, (own, other)) in zip(before, some).enumerated() {
            #expect(abs(other - own - ((1...2).contains(place) ? 2.5 : 0)) < 1e-5, "\(place)")
        }
        for (steer, param) in [("9/9", "monet.steer"), ("x", "monet.steer")] {
            let answer = try await server.post(
                "/v1/completions",
                ["prompt": "the sea", "monet": ["steer": .object([.init(steer, 1)])]])
            #expect(answer.status == 400 && answer.param?.hasPrefix(param) == true, "\(answer.text)")
        }
    }

    /// A direction is added to the values at a hook point, for this request alone.
    @Test func directionsAreAdded() async throws {
        let server = try await RunningServer()
        func values(_ directions: JSONValue) async throws -> RunningServer.Answer {
            try await server.post(
                "/v1/completions",
                [
                    "prompt": "the sea", "max_tokens": 0, "echo": true,
                    "monet": ["directions": directions, "hidden_states": ["blocks.1.hook_resid_post"]],
                ])
        }
        func numbers(_ answer: RunningServer.Answer) -> [Double] {
            func all(_ value: JSONValue) -> [Double] {
                value.doubleValue.map { [$0] } ?? (value.arrayValue ?? []).flatMap(all)
            }
            let choice = answer.json["choices"]?.arrayValue?.first
            return (choice?["monet"]?["hidden_states"]?.members ?? []).flatMap {
                all($0.value["values"] ?? .null)
            }
        }
        let vector = JSONValue.array((0..<36).map { .number(Double($0)) })
        let before = numbers(try await values([]))
        let after = numbers(
            try await values([["hook": "blocks.1.hook_resid_post", "vector": vector, "scale": 0.5]]))
        #expect(!before.isEmpty && before.count == after.count)
        for (place, (own, other)) in zip(before, after).enumerated() {
            #expect(abs(other - own - 0.5 * Double(place % 36)) < 1e-3)
        }
        for directions in [
            [["hook": "nowhere", "vector": vector]],
            [["hook": "blocks.9.hook_resid_post", "vector": vector]],
            [["hook": "blocks.1.hook_resid_post", "vector": [1, 2]]],
            [["hook": "blocks.1.attn.hook_pattern", "vector": vector]],
            [["hook": "blocks.1.hook_resid_post", "vector": vector, "positions": "x"]],
            [["hook": "blocks.1.hook_resid_post", "file": "/etc/passwd"]],
        ] as [JSONValue] {
            let answer = try await values(directions)
            #expect(
                answer.status == 400 && answer.param?.hasPrefix("monet.directions") == true,
                "\(directions.serialized().prefix(80)): \(answer.text)")
        }
    }

    /// Edited models share the weights, and a request's own edits are its alone.
    @Test func editsBelongToTheirRequests() async throws {
        let server = try await RunningServer()
        func scores(_ extra: [JSONValue.Member]) async throws -> [JSONValue] {
            let answer = try await server.post(
                "/v1/completions",
                .object(
                    [
                        .init("prompt", "the sea and the shark"), .init("max_tokens", 0), .init("echo", true),
                        .init("logprobs", 0),
                    ] + extra))
            return answer.json["choices"]?.arrayValue?.first?["logprobs"]?["token_logprobs"]?.arrayValue ?? []
        }
        let plain = try await scores([])
        let named = try await scores([.init("model", "small:without <b>some</b>")])
        let inMonet = try await scores([.init("monet", ["masks": ["without <b>some</b>"]])])
        let listed = try await scores([
            .init("monet", ["remove": .array((0..<60).map { .string("0/\($0)") })])
        ])
        let strengths = try await scores([
            .init("monet", ["strengths": .object((0..<60).map { .init("0/\($0)", 0) })])
        ])
        let unchanged = try await scores([
            .init("monet", ["masks": [["name": "without <b>some</b>", "strength": 1]]])
        ])
        #expect(plain != named && !plain.isEmpty)
        #expect(named == inMonet && named == listed && named == strengths)
        // Pairs with strength 1 sum the same numbers in another order.
        #expect(
            zip(plain, unchanged).allSatisfy { abs(($0.doubleValue ?? 0) - ($1.doubleValue ?? 0)) < 1e-4 })
        #expect(try await scores([]) == plain)
        let traced = try await server.post(
            "/v1/completions",
            [
                "prompt": "the sea", "max_tokens": 2, "ignore_eos": true,
                "monet": [
                    "experts_per_token": 2, "hidden_states": ["blocks.1.hook_resid_post"], "remove": ["0/1"],
                ],
            ])
        let report = try #require(traced.json["choices"]?.arrayValue?.first?["monet"])
        let rows = try #require(report["units"]?.arrayValue)
        #expect(
            rows.count == report["positions"]?.arrayValue?.count
                && rows.allSatisfy { $0.arrayValue?.isEmpty == false })
        #expect(!rows.contains { $0.arrayValue?.contains { $0["unit"] == "0/1" } ?? false })
        let width = server.served.model.configuration.hiddenSize
        #expect(report["hidden_states"]?["blocks.1.hook_resid_post"]?["shape"] == [.integer(width)])
    }
}
