import Foundation
import Logging
import Monet
import MonetHub
import MonetServer

// The examples of the doc comments, as they stand there: that this file compiles is what makes them right.
// `DocumentationTests` compares the two.

func tensors() {
    let x = Tensor([1.0, 2, 3, 4, 5, 6], shape: [2, 3])
    let half = x.converted(to: .bfloat16)
    print(half.shape, half.floats())
}

func backends(x: Tensor, w: Tensor) throws {
    let backend = CPUBackend()
    let y = try backend.linear(x, weight: w, bias: nil)
    _ = y
}

func tapes(backend: CPUBackend, x: Variable, w: Variable) throws {
    let tape = GradientTape(backend: backend, isRecording: true)
    let y = try tape.linear(x, weight: w, bias: nil)
    try tape.backward()
    _ = y
}

func workers(pool: WorkerPool, process: (Int) -> Void) {
    pool.parallel(chunks: 8) { chunk in process(chunk) }
}

func corpora() throws {
    let corpus = try Corpus(folder: "corpora/demo")
    let tokens = corpus.tokens(in: .train, 0..<1024)
    _ = tokens
}

func tokenizers() throws {
    let tokenizer = try Tokenizer(folder: "checkpoints/monet")
    let ids = try tokenizer.encode("The answer", addBegin: true)
    print(try tokenizer.decode(ids))
}

func decoders(tokenizer: Tokenizer, ids: [Int32]) throws {
    var decoder = StreamingDecoder(tokenizer: tokenizer)
    for id in ids { print(try decoder.append(id), terminator: "") }
    print(decoder.finish())
}

func files() throws {
    let file = try SafetensorsFile(path: "model.safetensors")
    let weight = try file.tensor("lm_head.weight")
    _ = weight
}

func models() throws {
    let model = try MonetLanguageModel.load("checkpoints/monet-vd-1.4B")
    let output = try model.forward(ForwardInput([[1, 5, 17]]))
    let logits = try model.logits(output.hidden.value)
    _ = logits
}

func inputs(model: MonetLanguageModel) throws {
    var input = ForwardInput([[1, 5, 17]])
    input.hooks.observed = [HookPoint(.residPost, layer: 3)]
    let output = try model.forward(input)
    _ = output
}

func masks(model: MonetLanguageModel, ids: [Int32]) throws {
    var mask = UnitMask(model.units)
    mask.remove([147_040], group: 5)
    let output = try model.forward(ForwardInput([ids], mask: mask))
    _ = output
}

func samplers(settings: SamplingSettings, logits: [Float], ids: [Int32]) throws {
    var sampler = try Sampler(settings)
    let id = try sampler.next(logits, history: ids)
    _ = id
}

func generators(model: MonetLanguageModel, tokenizer: Tokenizer) async throws {
    let generator = TextGenerator(model: model, tokenizer: tokenizer)
    let prompt = try tokenizer.encode("The sea", addBegin: true)
    for try await step in generator.steps(prompt) { print(step.text, terminator: "") }
}

func batchEngines(model: MonetLanguageModel, prompts: [[Int32]]) throws {
    let engine = try BatchEngine(model: model)
    for prompt in prompts { try engine.submit(GenerationRequest(prompt)) }
    while !engine.isIdle {
        for event in engine.step() { print(event.request, event.kind) }
    }
}

func textEngines(model: MonetLanguageModel, tokenizer: Tokenizer, prompts: [String]) throws {
    let engine = TextEngine(try BatchEngine(model: model), tokenizer: tokenizer)
    for prompt in prompts { try engine.submit(GenerationRequest(tokenizer.encode(prompt))) }
    while !engine.isIdle {
        for event in engine.step() { print(event.request, event.kind) }
    }
}

func documents() throws {
    let documents = try LabelledDocuments(corpus: Corpus(folder: "corpora/demo"), split: .train)
    _ = documents
}

func indices() throws {
    let index = try ExpertIndex(path: "experts.sqlite")
    let dossier = try index.dossier(of: UnitID(group: 0, index: 1777))
    _ = dossier
}

func traces(
    ids: [Int32], model: MonetLanguageModel, tokenizer: Tokenizer, backend: CPUBackend
) throws {
    let trace = try RoutingTrace(of: ids, model: model, tokenizer: tokenizer, backend: backend)
    for token in trace.tokens { print(token.text, token.groups[0].experts[0].expert) }
}

func scorers() throws {
    let scorer = try WordToxicityScorer.shipped()
    let scores = try scorer.scores(of: ["The shark is a large fish."])
    _ = scores
}

func ownScorers() throws {
    let scorer = try ToxicityClassifier(contentsOfFile: "scorer.json")
    let scores = try scorer.scores(of: ["The shark is a large fish."])
    _ = scores
}

func services(model: MonetLanguageModel, tokenizer: Tokenizer, ids: [Int32]) async throws {
    let service = try GenerationService(model: model, tokenizer: tokenizer)
    for try await event in service.events(TextRequest(GenerationRequest(ids))) {
        if case .step(let step) = event { print(step.text, terminator: "") }
    }
}

func batches(lines: [PromptLine], engine: BatchEngine, tokenizer: Tokenizer, fingerprint: String) throws {
    let batch = PromptBatch(lines, results: "results.jsonl", fingerprint: fingerprint)
    let isDone = try batch.run(on: TextEngine(engine, tokenizer: tokenizer)) { progress in true }
    print(isDone)
}

func servers(
    options: ServerOptions, logger: Logger, loadModel: @escaping @Sendable () throws -> ServedModel
) async throws {
    let server = ModelServer(options: options, logger: logger) { try loadModel() }
    try await server.run()
}

func pages(index: ExpertIndex) throws {
    try StaticExplorer(index: index).write(to: "experts") { done, total in true }
}

func downloads() throws {
    let download = try HubDownload("MonetLLM/monet-vd-850M-100BT-hf")
    let folder = try download.run { progress in true }
    print(folder)
}

func steerings(ids: [Int32]) {
    var steering = Steering()
    steering.units = [.init(group: 1, index: 223, score: 3)]
    var sequence = ForwardSequence(ids)
    sequence.steering = steering
    print(sequence.count)
}

func activations(
    model: MonetLanguageModel, documents: LabelledDocuments, selection: ActivationSelection
) async throws {
    let reader = try ActivationReader(model: model, documents: documents, selection)
    for try await document in reader { print(document.tokens.count, document.scores.count) }
}

func patchings(
    clean: [Int32], corrupted: [Int32], metric: AttributionTarget, model: MonetLanguageModel
) throws {
    let patching = try ActivationPatching(clean: clean, corrupted: corrupted, target: metric, model: model)
    let table = try patching.run(over: .residual)
    print(table.shares)
}

func attributions(model: MonetLanguageModel, ids: [Int32]) throws {
    let pass = try LinearizedPass(ids, target: AttributionTarget(token: 13), model: model)
    let graph = try AttributionGraph(pass, unitCount: 500).pruned()
    for edge in graph.edges { print(graph.nodes[edge.source], graph.nodes[edge.target], edge.weight) }
}

func contrasts(kind: [[Int32]], rude: [[Int32]], model: MonetLanguageModel) throws {
    let contrast = try UnitContrast(positive: kind, negative: rude, model: model)
    for unit in contrast.strongest(10) { print(unit.unit, unit.riskDifference) }
}

func templates() throws {
    let template = try TextTemplate("Question: {{question.strip()}}\nAnswer:")
    print(try template.render([.init("question", " Why? ")]))
}

func benchmarks(model: MonetLanguageModel, tokenizer: Tokenizer) throws {
    let library = try TaskLibrary(.harness)
    let selection = try library.selection(["arc_easy", "mmlu"])
    let tasks = try selection.tasks.map { try EvaluationTask($0, data: DatasetFolder("data")) }
    let run = EvaluationRun(model: model, tokenizer: tokenizer, tasks: tasks, groups: selection.groups)
    print(try run.results().rows)
}

// The README's example.
func readme() throws {
    let model = try MonetLanguageModel.load("checkpoints/demo")
    let tokenizer = try Tokenizer(folder: "checkpoints/demo")
    let ids = try tokenizer.encode("The shark is a fish", addBegin: true)
    let trace = try RoutingTrace(of: ids, model: model, tokenizer: tokenizer)
    _ = trace
}
