import Foundation
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText

extension EvaluationRun {
    /// Generates the answers to questions, and runs those that are programs.
    func generate(
        _ items: [TaskItem], _ open: inout Open, _ records: EvaluationRecords, _ counter: inout Counter,
        _ progress: (Progress) -> Bool
    ) throws {
        let definition = open.task.definition
        let plan = definition.generation
        guard plan.maxNewTokens < tokens.context else {
            throw EvaluationError.invalidSetting(
                name: "the number of new tokens of the task \(definition.name)",
                found: "\(plan.maxNewTokens)",
                expected: "fewer than the model's context of \(tokens.context)")
        }
        var limits = BatchEngine.Limits()
        limits.sequences = 16
        let engine = TextEngine(
            try BatchEngine(model: model, backend: backend, limits: limits, contextLength: tokens.context),
            tokenizer: tokenizer)
        var settings = GenerationSettings()
        settings.maxNewTokens = plan.maxNewTokens
        settings.sampling.temperature = plan.isSampled ? (plan.temperature == 0 ? 1 : plan.temperature) : 0
        // What transformers assumes where nothing is stated.
        settings.sampling.topP = plan.topP ?? 1
        settings.sampling.topK = plan.topK ?? 50
        var stops = plan.stops.filter { !$0.isEmpty }
        if let end = tokenizer.endID, let text = try? tokenizer.textWithSpecialTokens([end]), !text.isEmpty,
            !stops.contains(text)
        {
            stops.append(text)
        }
        let judge = try definition.programLanguage.map { language in
            guard let isolation else { throw EvaluationError.programsNotAllowed(task: definition.name) }
            return try ProgramRunner(language: language, isolation: isolation)
        }
        var owners: [Int: (item: TaskItem, sample: Int)] = [:]
        var texts: [Int: [String?]] = [:]
        var waiting = items[...]
        while !waiting.isEmpty || !engine.isIdle {
            // Requests are submitted as slots become free, so that few prompts are in memory.
            while engine.runningCount + engine.waitingCount < 2 * limits.sequences,
                let item = waiting.popFirst()
            {
                let prompt = try tokens.prompt(item.requests[0].context, newTokens: plan.maxNewTokens)
                texts[item.index] = Array(repeating: nil, count: definition.repeats)
                for sample in 0..<definition.repeats {
                    var settings = settings
                    settings.sampling.seed = StableHash.of(
                        "\(seed) \(definition.name) \(item.index) \(sample)")
                    let request = GenerationRequest(prompt, settings: settings, mask: mask)
                    // A problem of MultiPL-E says where its functions end.
                    let own = item.document["stop_tokens"]?.arrayValue?.compactMap(\.stringValue)
                    let all = judge == nil ? stops : stops + (own ?? [])
                    owners[try engine.submit(request, stopStrings: all.filter { !$0.isEmpty })] = (
                        item, sample
                    )
                }
            }
            for event in engine.step() {
                switch event.kind {
                case .failed(let error): throw error
                case .step: counter.tokens += 1
                case .finished(let result):
                    guard let (item, sample) = owners.removeValue(forKey: event.request) else { continue }
                    // A program's first spaces count, and its stop strings are cut off already.
                    texts[item.index]?[sample] =
                        judge == nil ? try text(of: result, stops: stops) : result.text
                    guard let own = texts[item.index], own.allSatisfy({ $0 != nil }) else { continue }
                    texts[item.index] = nil
                    let answers = [
                        try judge?.judged(own.compactMap { $0 }, of: item)
                            ?? TaskResponse.texts(own.compactMap { $0 })
                    ]
                    open.answers[item.index] = answers
                    try records.append(definition.name, item, answers)
                    try records.flush()
                    counter.done += 1
                    counter.doneNow += 1
                case .scored, .observed: break
                }
            }
            let state = Progress(
                task: definition.name, done: counter.done, total: counter.total, doneNow: counter.doneNow,
                tokens: counter.tokens, tokensLeft: 0)
            guard progress(state) || counter.done == counter.total else { throw CancellationError() }
        }
    }

    /// The text up to the first of each stop string, decoded from its own beginning as the harness does.
    private func text(of result: GenerationResult, stops: [String]) throws -> String {
        var ids = result.ids
        if let last = ids.last, model.configuration.stopTokenIDs.contains(Int(last)) { ids.removeLast() }
        var text = try tokenizer.decode(ids)
        for stop in stops { text = PythonText.split(text, by: stop)[0] }
        return text
    }
}
