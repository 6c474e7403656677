import HTTPTypes
import Hummingbird
import MonetFoundation
import MonetText
import NIOPosix

/// OpenAI's operations, and those of the remote tokenizer that evaluation harnesses use.
struct OpenAIEndpoints: Sendable {
    let holder: ModelHolder
    let admission: Admission
    let metrics: ServerMetrics

    var all: [Endpoint] {
        [models, model, completions, chat, tokenize, detokenize, tokenizerInfo, applyTemplate]
    }

    private static func entry(_ name: String, _ served: ServedModel) -> JSONValue {
        [
            "id": .string(name), "object": "model", "created": .integer(served.created), "owned_by": "monet",
            "max_model_len": .integer(served.contextLength),
            "parent": name == served.name ? .null : .string(served.name),
        ]
    }

    private var models: Endpoint {
        Endpoint(method: .get, path: "/v1/models", summary: "The model as it is, and with each mask.") { _ in
            let served = try holder.model()
            return .json(["object": "list", "data": .array(served.names.map { Self.entry($0, served) })])
        }
    }

    private var model: Endpoint {
        Endpoint(
            method: .get, path: "/v1/models/{model}", summary: "One of the models.",
            parameters: [
                .init(
                    name: "model", place: .path, schema: .string(lengths: 1...1000), description: "Its name.")
            ], errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let name = call.parameters["model"]?.stringValue ?? ""
            _ = try served.mask(ofModel: name)
            return .json(Self.entry(name, served))
        }
    }

    private var completions: Endpoint {
        Endpoint(
            method: .post, path: "/v1/completions", summary: "Continue prompts, or score them.",
            body: CompletionEndpoint.schema, answers: ["application/json", "text/event-stream"],
            errors: [.notFound]
        ) { call in
            try await run(call.context) { try CompletionEndpoint.plan(call.body, try holder.model()) }
        }
    }

    private var chat: Endpoint {
        Endpoint(
            method: .post, path: "/v1/chat/completions", summary: "Continue a conversation.",
            body: ChatEndpoint.schema, answers: ["application/json", "text/event-stream"], errors: [.notFound]
        ) { call in
            try await run(call.context) { try ChatEndpoint.plan(call.body, try holder.model()) }
        }
    }

    /// Checks a request, takes its places and answers it, whole or in chunks.
    private func run<Plan: TextPlan>(
        _ context: ServerContext, _ plan: @escaping @Sendable () throws -> Plan
    ) async throws -> Response {
        var plan = try await Self.checked(plan)
        plan.job.whenFirst = firstToken()
        let places = try admission.take(plan.job.requests.count)
        let ready = plan
        if ready.target.isStreamed {
            return .events(context, keeping: places) { try await ready.stream(&$0, releasing: places) }
        }
        return try await answer(context, places) { try await ready.answer() }
    }

    private func firstToken() -> @Sendable () -> Void {
        let began = ContinuousClock.now
        let metrics = metrics
        return { metrics.firstToken(after: (.now - began).seconds) }
    }

    /// Runs what may take long for a large request, on a thread that may wait.
    private static func checked<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws
        -> Value
    {
        do {
            return try await NIOThreadPool.singleton.runIfActive(body)
        } catch {
            throw APIError(engine: error)
        }
    }

    private func answer(
        _ context: ServerContext, _ places: Admission.Places,
        _ body: @escaping @Sendable () async throws -> JSONValue
    ) async throws -> Response {
        defer { withExtendedLifetime(places) {} }
        do {
            return .json(try await context.whileConnected(body))
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw APIError(engine: error)
        }
    }

    // MARK: Tokenizer

    private var tokenize: Endpoint {
        Endpoint(
            method: .post, path: "/tokenize", summary: "The ids of a text's tokens.",
            body: .object([
                .init("prompt", .string(), "The text.", isRequired: true),
                .init("model", .string(), "A name that /v1/models lists; all have one tokenizer."),
                .init(
                    "add_special_tokens", .boolean,
                    "Whether a begin token comes first where the model's texts have one; true by default."),
                .init("return_token_strs", .boolean, "Report the tokens' texts too."),
            ]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            if let name = call.body["model"]?.stringValue { _ = try served.mask(ofModel: name) }
            let text = call.body["prompt"]?.stringValue ?? ""
            let adds = call.body["add_special_tokens"]?.boolValue ?? true
            let ids = try await Self.checked {
                var ids = try served.tokenizer.encode(text, parsingSpecial: true)
                if adds, served.tokenizer.addsBegin, let begin = served.tokenizer.beginID, ids.first != begin
                {
                    ids.insert(begin, at: 0)
                }
                return ids
            }
            var members: [JSONValue.Member] = [
                .init("tokens", .array(ids.map { .integer(Int($0)) })), .init("count", .integer(ids.count)),
                .init("max_model_len", .integer(served.contextLength)),
            ]
            if call.body["return_token_strs"]?.boolValue ?? false {
                let names = TokenNames(tokenizer: served.tokenizer)
                members.append(.init("token_strs", .array(ids.map { .string(names.name($0)) })))
            }
            return .json(.object(members))
        }
    }

    private var detokenize: Endpoint {
        Endpoint(
            method: .post, path: "/detokenize", summary: "The text of tokens, special ones included.",
            body: .object([
                .init(
                    "tokens", .array(.integer(0...Int(Int32.max)), counts: 0...1_000_000), "Ids of tokens.",
                    isRequired: true),
                .init("model", .string(), "A name that /v1/models lists; all have one tokenizer."),
            ]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            if let name = call.body["model"]?.stringValue { _ = try served.mask(ofModel: name) }
            let ids = (call.body["tokens"]?.arrayValue ?? []).map { Int32($0.intValue ?? 0) }
            let size = served.tokenizer.vocabularySize
            if let unknown = ids.first(where: { $0 >= size }) {
                throw APIError.invalid("tokens", "token \(unknown) is not in the vocabulary of \(size)")
            }
            return .json([
                "prompt": .string(try await Self.checked { try served.tokenizer.textWithSpecialTokens(ids) })
            ])
        }
    }

    private var tokenizerInfo: Endpoint {
        Endpoint(
            method: .get, path: "/tokenizer_info",
            summary: "The tokenizer's special tokens and chat template."
        ) { _ in
            let served = try holder.model()
            func text(_ key: String) -> JSONValue {
                served.tokenizer.specialTokenTexts[key].map { .string($0) } ?? .null
            }
            return .json([
                "tokenizer_class": "LlamaTokenizer", "bos_token": text("bos_token"),
                "eos_token": text("eos_token"),
                "unk_token": text("unk_token"), "pad_token": text("pad_token"),
                "add_bos_token": .bool(served.tokenizer.addsBegin),
                "model_max_length": .integer(served.contextLength),
                "vocab_size": .integer(served.tokenizer.vocabularySize),
                "chat_template": served.tokenizer.chatTemplate.map { .string($0) } ?? .null,
            ])
        }
    }

    private var applyTemplate: Endpoint {
        Endpoint(
            method: .post, path: "/apply-template", summary: "The prompt that a conversation becomes.",
            body: .object([
                .init(
                    "messages", .array(ChatEndpoint.message, counts: 1...4096), "The conversation.",
                    isRequired: true),
                .init("model", .string(), "A name that /v1/models lists; all have one template."),
                .init(
                    "add_generation_prompt", .boolean,
                    "Whether the prompt opens the assistant's turn; true by default."),
            ]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            if let name = call.body["model"]?.stringValue { _ = try served.mask(ofModel: name) }
            let prompt = try await Self.checked {
                try PromptTemplate(served).prompt(
                    call.body["messages"] ?? .null,
                    addsGenerationPrompt: call.body["add_generation_prompt"]?.boolValue ?? true)
            }
            return .json([
                "prompt": .string(prompt.text), "tokens": .array(prompt.tokens.map { .integer(Int($0)) }),
            ])
        }
    }
}
