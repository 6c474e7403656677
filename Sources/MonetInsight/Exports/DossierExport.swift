import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// What exports of an index have in common: which experts they hold, under which names, and with which contexts.
public struct DossierExport {
    /// What to export, and the names that the other tools need.
    public struct Settings: Sendable {
        /// The model's name: letters, digits, `-` and `_`.
        public var model: String
        /// The name of the set of experts.
        public var set = "monet-experts"
        /// Only these groups; nil means all.
        public var groups: [Int]?
        /// Tokens of the index on which an expert must fire.
        public var minimumCount = 10
        /// Tokens before and after each firing one.
        public var context = 16
        /// Whether the tokens that each expert promotes are measured, which takes two passes over its contexts.
        public var measuresEffects = false
        /// The user at Neuronpedia who owns the rows.
        public var creator = "clkht01d40000jv08hvalcvly"

        /// Everything of a model, for experts that fire on 10 tokens or more.
        public init(model: String) {
            let name = String(
                model.map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_".contains($0)) ? $0 : "-" })
            self.model = name.isEmpty ? "monet" : name
        }
    }

    /// Experts of a group with neighbouring indices.
    struct Block {
        let group: Int
        /// Multiplied by the block's size, the first index.
        let number: Int
        let experts: [Expert]
    }

    /// An expert as an export shows it.
    struct Expert {
        let dossier: ExpertDossier
        let contexts: [Context]
    }

    /// A context with the range of scores for which it stands.
    struct Context {
        let activation: ExpertDossier.Activation
        let scores: [Double]
        /// −1 for the strongest contexts.
        let lower: Double
        let upper: Double
        /// Share of the firing tokens with scores in the range; −1 for the strongest contexts.
        let share: Double
    }

    let index: ExpertIndex
    let settings: Settings
    private let model: MonetLanguageModel
    private let backend: any Backend

    /// - Throws: `InsightError.foreignIndex` for another model, `InsightError.invalidSetting` for a group that it does not have.
    public init(
        _ index: ExpertIndex, model: MonetLanguageModel, settings: Settings,
        backend: any Backend = CPUBackend()
    ) throws {
        try index.require(model)
        var settings = settings
        settings.groups = try settings.groups.map(index.checkedGroups)
        (self.index, self.model, self.settings, self.backend) = (index, model, settings, backend)
    }

    var groups: [Int] { settings.groups ?? Array(0..<index.units.groups) }
    /// The first layer of a group, which stands for it.
    func layer(_ group: Int) -> Int { index.units.layersOfGroup[group].lowerBound }
    /// Where the group's experts write.
    func hookName(_ group: Int) -> String { "blocks.\(layer(group)).hook_mlp_out" }

    /// Passes on a group's experts in blocks of neighbouring indices, without empty blocks.
    ///
    /// - `progress`: called with the experts whose contexts are measured; false stops.
    /// - Throws: `CancellationError` when stopped.
    func forEachBlock(
        of group: Int, size: Int, progress: (Int) -> Bool, _ body: (Block) throws -> Void
    ) throws {
        let chosen = try index.experts(group: group, minimumCount: settings.minimumCount)
            .sorted { $0.index < $1.index }
        var done = 0
        var first = 0
        while first < chosen.count {
            let number = chosen[first].index / size
            let end = chosen[first...].firstIndex { $0.index / size != number } ?? chosen.count
            var dossiers = try chosen[first..<end].map {
                try index.dossier(of: $0, context: settings.context, neighbours: 0)
            }
            let count = dossiers.count
            var isStopped = false
            try index.measureContexts(of: &dossiers, model: model, backend: backend) { measured, contexts in
                isStopped = !progress(done + count * measured / max(1, contexts))
                return !isStopped
            }
            for place in dossiers.indices where settings.measuresEffects && !isStopped {
                dossiers[place].logitEffects = try index.logitEffects(
                    of: dossiers[place].expert, model: model, backend: backend, limit: 10)
                isStopped = !progress(done + place)
            }
            if isStopped { throw CancellationError() }
            try body(Block(group: group, number: number, experts: dossiers.map(Self.expert)))
            done += end - first
            first = end
            guard progress(done) else { throw CancellationError() }
        }
    }

    private static func expert(_ dossier: ExpertDossier) -> Expert {
        func context(
            _ activation: ExpertDossier.Activation, _ lower: Double, _ upper: Double, _ share: Double
        ) -> Context? {
            activation.scores.map {
                Context(activation: activation, scores: $0, lower: lower, upper: upper, share: share)
            }
        }
        let top = dossier.activations.compactMap { context($0, -1, dossier.max, -1) }
        let samples = dossier.samples.flatMap { band in
            band.activations.compactMap {
                context(
                    $0, band.lower ?? 0, min(band.upper ?? dossier.max, dossier.max),
                    Double(band.count) / Double(Swift.max(1, dossier.count)))
            }
        }
        return Expert(dossier: dossier, contexts: top + samples)
    }
}

extension DossierExport.Expert {
    /// The columns that both formats have: neighbours in other bases, promoted tokens and histograms. What would need one vector
    /// for an expert is empty, because an expert's output depends on its input.
    var statistics: [JSONValue.Member] {
        let effects = dossier.logitEffects
        func texts(_ tokens: [LogitEffects.Token]?) -> JSONValue {
            .array((tokens ?? []).map { .string($0.text) })
        }
        func values(_ tokens: [LogitEffects.Token]?) -> JSONValue {
            .array((tokens ?? []).map { .number($0.change) })
        }
        let bins = dossier.histogram.indices.filter { dossier.histogram[$0] > 0 }
        let empty = [
            "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
            "correlated_neurons_indices", "correlated_neurons_pearson", "correlated_neurons_l1",
            "correlated_features_indices", "correlated_features_pearson", "correlated_features_l1",
            "logits_hist_data_bar_heights", "logits_hist_data_bar_values", "decoder_weights_dist",
        ]
        return [
            .init("neg_str", texts(effects?.suppressed)), .init("neg_values", values(effects?.suppressed)),
            .init("pos_str", texts(effects?.promoted)), .init("pos_values", values(effects?.promoted)),
            .init("frac_nonzero", .number(dossier.frequency)),
            .init(
                "freq_hist_data_bar_heights", .array(bins.map { .number(Double(dossier.histogram[$0])) })),
            .init("freq_hist_data_bar_values", .array(bins.map { .number(dossier.histogramEnds[$0]) })),
        ] + empty.map { .init($0, []) }
    }
}

extension DossierExport.Context {
    var tokens: JSONValue { .array(activation.pieces.map { .string($0) }) }
    var values: JSONValue { .array(scores.map { .number($0) }) }
}

extension ExpertIndex {
    /// Groups in ascending order, each once.
    ///
    /// - Throws: `InsightError.invalidSetting` for one that the model does not have.
    func checkedGroups(_ groups: [Int]) throws -> [Int] {
        if let bad = groups.first(where: { !(0..<units.groups).contains($0) }) {
            throw InsightError.invalidSetting(
                name: "the group", found: "\(bad)", expected: "0 to \(units.groups - 1)")
        }
        return Set(groups).sorted()
    }
}
