import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText

/// `monet generate --prompts`.
struct PromptBatchRun {
    let command: GenerateCommand
    let model: MonetLanguageModel
    let tokenizer: Tokenizer?
    let backend: CPUBackend

    func run(_ prompts: String, _ out: String) throws {
        try command.overwriting.check(out)
        if command.overwriting.overwrite { PromptBatch.discard(out) }
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: command.modelOptions.model, purpose: "a batch")
        }
        let logger = command.common.logger
        var settings = try command.samplingOptions.settings(for: model, logger)
        settings.sampling.seed = command.samplingOptions.seed ?? 0
        settings.topLogProbabilities = command.logProbs
        var known: [String: UnitMask] = [:]
        let defaults = PromptLine.Defaults(
            settings: settings, stopStrings: command.samplingOptions.stopStrings(for: model),
            mask: try command.masking.load(for: model, logger),
            steering: try command.steering.load(for: model, tokenizer, on: backend)
        ) { argument in
            if let mask = known[argument] { return mask }
            let (path, strength) = try MaskOptions.parse(argument)
            let mask = try MaskOptions.read(path, for: model, logger).mask.applied(strength: strength)
            known[argument] = mask
            return mask
        }
        let text = try TextFile.read(prompts, readsStreams: true)
        var lines: [PromptLine] = []
        for (index, line) in text.lines.enumerated() where !line.allSatisfy(\.isWhitespace) {
            let json = try JSONValue(parsing: String(line), source: "\(prompts), line \(index + 1)")
            lines.append(
                try PromptLine(
                    json, index: index, source: prompts, model: model, tokenizer: tokenizer, defaults))
        }
        guard !lines.isEmpty else {
            throw CommandError.malformedInput(source: prompts, reason: "it has no prompts")
        }
        var checksum = Checksum()
        // All that a result depends on, besides the model.
        var words =
            text
            + "\(settings.maxNewTokens) \(settings.sampling) \(settings.endTokenIDs ?? [-1]) \(command.masking.mask) "
            + "\(defaults.stopStrings) \(backend.isBatchInvariant) \(command.samplingOptions.cache.kvDtype) "
            + "\(command.samplingOptions.context ?? 0) \(command.logProbs) "
            + (defaults.steering.map { "\($0)" } ?? "")
        for path in try
            (command.masking.mask.map { try MaskOptions.parse($0).path }
            + known.keys.map { try MaskOptions.parse($0).path }).sorted()
        {
            words += try Checksum(of: MappedFile(path: path).bytes).text
        }
        words.withUTF8 { checksum.update(UnsafeRawBufferPointer($0)) }
        var limits = BatchEngine.Limits()
        limits.sequences = command.parallel
        let engine = TextEngine(
            try BatchEngine(
                model: model, backend: backend, limits: limits,
                contextLength: command.samplingOptions.context,
                cacheType: command.samplingOptions.cache.kvDtype.dtype),
            tokenizer: tokenizer)
        Interruption.install()
        var line = ProgressLine(isQuiet: command.common.quiet)
        let isDone = try PromptBatch(
            lines, results: out, fingerprint: model.fingerprint + " " + checksum.text
        )
        .run(on: engine) { progress in
            line.show(Self.text(progress))
            return !Interruption.isRequested
        }
        line.clear()
        guard isDone else {
            StandardError.write("stopped; the same command continues the batch\n")
            throw Interruption.exitCode
        }
        logger.info("wrote \(out)")
    }

    private static func text(_ progress: PromptBatch.Progress) -> String {
        let rate = Double(progress.tokens) / max(1e-9, progress.seconds)
        return "\(progress.done) of \(progress.total) prompts, \(rate.text(1)) tokens/s"
    }
}

/// `monet generate --compare`: a prompt continued without and with masks, side by side.
struct SideBySide {
    let command: GenerateCommand
    let model: MonetLanguageModel
    let tokenizer: Tokenizer?
    let backend: CPUBackend

    func run(_ ids: [Int32], _ settings: GenerationSettings) throws {
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: command.modelOptions.model, purpose: "a comparison")
        }
        let logger = command.common.logger
        let own = try command.masking.load(for: model, logger)
        var variants: [(name: String, mask: UnitMask?)] = [(own == nil ? "as it is" : "with --mask", own)]
        for argument in command.compare {
            let (path, strength) = try MaskOptions.parse(argument)
            let mask = try MaskOptions.read(path, for: model, logger).mask.applied(strength: strength)
            variants.append((argument, own.map { $0.union(mask) } ?? mask))
        }
        let engine = TextEngine(
            try BatchEngine(
                model: model, backend: backend, contextLength: command.samplingOptions.context,
                cacheType: command.samplingOptions.cache.kvDtype.dtype),
            tokenizer: tokenizer)
        let stops = command.samplingOptions.stopStrings(for: model)
        let steering = try command.steering.load(for: model, tokenizer, on: backend)
        let numbers = try variants.map { variant in
            var request = GenerationRequest(ids, settings: settings, mask: variant.mask)
            request.steering = steering
            return try engine.submit(request, stopStrings: stops)
        }
        var results: [Int: GenerationResult] = [:]
        Interruption.install()
        while !engine.isIdle {
            if Interruption.isRequested { for number in numbers { engine.finish(number) } }
            for event in engine.step() {
                switch event.kind {
                case .finished(let result): results[event.request] = result
                case .failed(let error): throw error
                case .step, .scored, .observed: continue
                }
            }
        }
        let texts = numbers.compactMap { results[$0] }
        if command.json {
            try StandardOutput.write(
                .array(
                    zip(variants, texts).map { variant, result in
                        [
                            "variant": .string(variant.name), "text": .string(result.text),
                            "new_ids": .array(result.ids.map { .integer(Int($0)) }),
                            "finish_reason": .string(result.finishReason.rawValue),
                            "log_probability": .number(result.tokens.reduce(0) { $0 + $1.logProbability }),
                        ]
                    }))
        } else {
            try StandardOutput.write(
                foreign: Self.columns(
                    zip(variants, texts).map { ($0.name, $1.text) }, width: Self.terminalWidth))
        }
        if Interruption.isRequested { throw Interruption.exitCode }
    }

    private static var terminalWidth: Int {
        var size = winsize()
        let isKnown = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 20
        return isKnown ? Int(size.ws_col) : 100
    }

    /// Texts in columns, words wrapped; words from the first on that differ from the first text are marked.
    static func columns(_ texts: [(name: String, text: String)], width: Int) -> String {
        let gap = 3
        let column = max(16, (width + gap) / max(1, texts.count) - gap)
        let reference = texts.first?.text ?? ""
        let heads = texts.map { name, text in
            let same = zip(text, reference).prefix { $0 == $1 }.count
            let note = text == reference ? "" : " (differs after \(same) characters)"
            return lines((name + note).onOneLine, column)
        }
        let headHeight = heads.map(\.count).max() ?? 0
        let wrapped = zip(heads, texts).map { head, entry in
            head + Array(repeating: "", count: headHeight - head.count)
                + [String(repeating: "─", count: column)] + lines(entry.text, column)
        }
        let height = wrapped.map(\.count).max() ?? 0
        return (0..<height).map { row in
            let cells = wrapped.map { row < $0.count ? $0[row] : "" }
            return cells.enumerated().map { place, cell in
                place == cells.count - 1
                    ? cell : cell + String(repeating: " ", count: column - cell.count + gap)
            }.joined() + "\n"
        }.joined()
    }

    private static func lines(_ text: String, _ width: Int) -> [String] {
        text.split(separator: "\n", omittingEmptySubsequences: false).flatMap { paragraph -> [String] in
            var lines: [String] = []
            var line = ""
            for word in paragraph.split(separator: " ") {
                var word = word
                if !line.isEmpty, line.count + 1 + word.count > width {
                    lines.append(line)
                    line = ""
                }
                while word.count > width {
                    lines.append(String(word.prefix(width)))
                    word = word.dropFirst(width)
                }
                line += (line.isEmpty ? "" : " ") + word
            }
            return lines + [line]
        }
    }
}
