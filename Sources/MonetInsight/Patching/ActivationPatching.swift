import MonetCompute
import MonetModel

/// Activation patching: values of a clean run are put into a corrupted one, one place at a time, and a metric tells how much
/// of the clean behaviour comes back (Meng et al. 2022; the exploratory analyses of TransformerLens).
///
///     let patching = try ActivationPatching(clean: clean, corrupted: corrupted, target: metric, model: model)
///     let table = try patching.run(over: .residual)
///
/// A cell is (patched − corrupted) / (clean − corrupted): 0 where the patch changes nothing, 1 where it restores the clean
/// value.
public struct ActivationPatching {
    /// What is patched.
    public enum Places: String, Sendable, CaseIterable {
        /// The residual stream before each layer, by position.
        case residual
        /// Each head's output at all positions, by layer.
        case heads
        /// What the experts (or a dense block) add, by position.
        case experts
        /// What attention adds, by position.
        case attention
    }

    /// The effects of all patches.
    public struct Table: Sendable {
        /// What was patched.
        public let places: Places
        /// Restored share of the metric by layer (rows) and position or head (columns).
        public let shares: [[Double]]
        /// The metric of both runs.
        public let clean: Double
        public let corrupted: Double
    }

    private let clean: [Int32]
    private let corrupted: [Int32]
    private let target: AttributionTarget
    private let model: MonetLanguageModel
    private let mask: UnitMask?
    private let backend: any Backend

    /// - `clean`, `corrupted`: prompts with as many tokens.
    /// - Throws: `InsightError.invalidSetting` for prompts of different lengths or without tokens.
    public init(
        clean: [Int32], corrupted: [Int32], target: AttributionTarget, model: MonetLanguageModel,
        mask: UnitMask? = nil, backend: any Backend = CPUBackend()
    ) throws {
        guard clean.count == corrupted.count, !clean.isEmpty else {
            throw InsightError.invalidSetting(
                name: "the corrupted prompt", found: "\(corrupted.count) tokens",
                expected: "as many as the clean one, \(clean.count)")
        }
        guard clean.count <= model.configuration.contextLength else {
            throw ModelError.contextExceeded(tokens: clean.count, context: model.configuration.contextLength)
        }
        guard target.terms.allSatisfy({ (0..<model.configuration.vocabularySize).contains(Int($0.token)) })
        else {
            throw InsightError.invalidSetting(
                name: "the metric", found: "a token outside the vocabulary",
                expected: "ids below \(model.configuration.vocabularySize)")
        }
        (self.clean, self.corrupted, self.target) = (clean, corrupted, target)
        (self.model, self.mask, self.backend) = (model, mask, backend)
    }

    /// One patch: rows and columns of a hook point that get the clean values.
    private struct Patch {
        let point: HookPoint
        let positions: Range<Int>
        /// The head; nil for all columns.
        let head: Int?
    }

    /// Runs every patch.
    ///
    /// - `batch`: patches in one forward pass.
    /// - `progress`: called with the share that is done; false stops.
    /// - Throws: `CancellationError` when stopped, `ModelError`, `ComputeError`, `InsightError.invalidSetting` if both
    ///   prompts give the same value of the metric.
    public func run(
        over places: Places, batch: Int = 16, progress: (Double) -> Bool = { _ in true }
    ) throws -> Table {
        let kind: HookPoint.Kind =
            switch places {
            case .residual: .residPre
            case .heads: .z
            case .experts: .mlpOut
            case .attention: .attnOut
            }
        let layers = 0..<model.configuration.layerCount
        let columns = places == .heads ? model.configuration.attentionHeads : clean.count
        let patches = layers.flatMap { layer in
            (0..<columns).map { column in
                places == .heads
                    ? Patch(point: HookPoint(kind, layer: layer), positions: clean.indices, head: column)
                    : Patch(point: HookPoint(kind, layer: layer), positions: column..<(column + 1), head: nil)
            }
        }
        var input = ForwardInput([clean], mask: mask)
        input.hooks.observed = Set(layers.map { HookPoint(kind, layer: $0) })
        let output = try model.forward(input, on: backend)
        let values = output.observations.mapValues { $0.value.floats() }
        let cleanValue = try metrics(output, sequences: 1)[0]
        let corruptedValue = try metrics(
            model.forward(ForwardInput([corrupted], mask: mask), on: backend), sequences: 1)[0]
        guard cleanValue != corruptedValue else {
            throw InsightError.invalidSetting(
                name: "the metric", found: "\(cleanValue) for both prompts", expected: "different values")
        }
        var shares: [Double] = []
        while shares.count < patches.count {
            guard progress(Double(shares.count) / Double(patches.count)) else { throw CancellationError() }
            let next = Array(patches[shares.count...].prefix(max(1, batch)))
            let measured = try metrics(patched(next, values), sequences: next.count)
            shares += measured.map { ($0 - corruptedValue) / (cleanValue - corruptedValue) }
        }
        return Table(
            places: places, shares: layers.map { Array(shares[($0 * columns)..<(($0 + 1) * columns)]) },
            clean: cleanValue, corrupted: corruptedValue)
    }

    /// Corrupted runs, each with its patch.
    private func patched(_ patches: [Patch], _ clean: [HookPoint: [Float]]) throws -> ForwardOutput {
        var input = ForwardInput(Array(repeating: corrupted, count: patches.count), mask: mask)
        let length = corrupted.count
        for (point, own) in Dictionary(grouping: patches.enumerated(), by: \.element.point) {
            guard let source = clean[point] else { continue }
            input.hooks.write(point) { value, tape in
                var values = value.value.floats()
                let width = value.value.count / value.value.shape[0]
                let heads = value.value.shape.count == 3 ? value.value.shape[1] : 1
                for (sequence, patch) in own {
                    let columns =
                        patch.head.map { ($0 * width / heads)..<(($0 + 1) * width / heads) } ?? 0..<width
                    for position in patch.positions {
                        for column in columns {
                            values[(sequence * length + position) * width + column] =
                                source[position * width + column]
                        }
                    }
                }
                return Variable(try tape.backend.tensor(Tensor(values, shape: value.value.shape)))
            }
        }
        return try model.forward(input, on: backend)
    }

    /// The metric after the last token of each sequence.
    private func metrics(_ output: ForwardOutput, sequences: Int) throws -> [Double] {
        try (0..<sequences).map { sequence in
            let row = (sequence + 1) * clean.count - 1
            let logits = try model.logits(output.hidden.value.slice(row..<(row + 1)), on: backend).floats()
            return target.terms.reduce(0.0) { $0 + Double($1.weight) * Double(logits[Int($1.token)]) }
        }
    }
}
