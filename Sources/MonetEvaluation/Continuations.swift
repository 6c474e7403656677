import MonetCompute
import MonetGeneration
import MonetModel
import MonetText

/// Continues prompts in one batch, for experiments that score texts.
struct Continuations {
    let model: MonetLanguageModel
    let tokenizer: Tokenizer
    let backend: any Backend

    /// The new texts, in the order of the requests.
    func texts(of requests: [GenerationRequest]) throws -> [String] {
        var limits = BatchEngine.Limits()
        limits.sequences = min(requests.count, 32)
        let context = requests.map { $0.tokens.count + $0.settings.maxNewTokens }.max() ?? 1
        let engine = TextEngine(
            try BatchEngine(model: model, backend: backend, limits: limits, contextLength: context),
            tokenizer: tokenizer)
        let numbers = try requests.map { try engine.submit($0) }
        var texts: [Int: String] = [:]
        while !engine.isIdle {
            for event in engine.step() {
                switch event.kind {
                case .finished(let result): texts[event.request] = result.text
                case .failed(let error): throw error
                case .scored, .step, .observed: break
                }
            }
        }
        return numbers.map { texts[$0] ?? "" }
    }
}
