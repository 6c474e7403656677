import Foundation
import MonetFoundation

extension DossierExport {
    /// Features of a batch: batch n holds those from 1024 n on.
    private static let batchSize = 1024

    /// Writes Neuronpedia's tree: `{model}/{layer}-{set}/` for each group, with `release.jsonl`, `model.jsonl`, `sourceset.jsonl`
    /// and `source.jsonl`, and batches of features, activations and explanations.
    ///
    /// - `progress`: called with the group and its experts that are done; false stops.
    /// - Throws: `FileError`, `CancellationError` when stopped; nothing is then written.
    public func writeNeuronpedia(
        to path: String, progress: (_ group: Int, _ experts: Int) -> Bool = { _, _ in true }
    ) throws {
        let date = Date().ISO8601Format()
        try AtomicFile.writeFolder(path) { folder in
            for group in groups {
                let source = "\(layer(group))-\(settings.set)"
                let own = folder + "/\(settings.model)/\(source)"
                try AtomicFile.createFolder(own)
                for (name, row) in descriptions(source, date) {
                    try AtomicFile.write(
                        JSONValue.object(row).serialized() + "\n", to: own + "/\(name).jsonl")
                }
                try forEachBlock(of: group, size: Self.batchSize, progress: { progress(group, $0) }) {
                    block in
                    let tables: [(String, [JSONValue])] = [
                        ("features", block.experts.map { feature($0, group, source, date) }),
                        ("activations", block.experts.flatMap { activations($0, source, date) }),
                        ("explanations", block.experts.flatMap { explanations($0, source, date) }),
                    ]
                    // The importer reads the first line of every file.
                    for (name, rows) in tables where !rows.isEmpty {
                        try AtomicFile.createFolder(own + "/" + name)
                        try GzipFile.write(
                            rows.map { $0.serialized() + "\n" }.joined(),
                            to: own + "/\(name)/batch-\(block.number).jsonl.gz")
                    }
                }
            }
        }
    }

    private func descriptions(_ source: String, _ date: String) -> [(name: String, row: [JSONValue.Member])] {
        let (model, set) = (settings.model, settings.set)
        let layers = (index.units.layersOfGroup.last?.upperBound ?? 0) + 1
        let description =
            "Experts of a Monet model: the feature's index is i · \(index.units.perSide ?? 0) + j for the pair of halves "
            + "(i, j), its activation the routing score, summed over heads."
        func owned(_ members: [JSONValue.Member]) -> [JSONValue.Member] {
            members + [
                .init("creatorId", .string(settings.creator)), .init("visibility", "PUBLIC"),
                .init("createdAt", .string(date)),
            ]
        }
        return [
            (
                "release",
                owned([
                    .init("name", .string("\(model)-\(set)")), .init("description", .string(description)),
                    .init("descriptionShort", "Experts of a Monet model"), .init("creatorName", "monet"),
                    .init("urls", ["https://arxiv.org/abs/2412.04139"]),
                ])
            ),
            (
                "model",
                owned([
                    .init("id", .string(model)), .init("displayName", .string(model)),
                    .init("displayNameShort", .string(model)), .init("layers", .integer(layers)),
                    .init("neuronsPerLayer", .integer(index.units.unitsPerGroup)), .init("owner", "monet"),
                    .init("tlensId", .null), .init("dimension", .null), .init("instruct", false),
                    .init("inferenceEnabled", false), .init("updatedAt", .string(date)),
                    .init("website", .null),
                ])
            ),
            (
                "sourceset",
                owned([
                    .init("modelId", .string(model)), .init("name", .string(set)),
                    .init("description", .string(description)), .init("type", "experts"),
                    .init("creatorName", "monet"), .init("urls", ["https://arxiv.org/abs/2412.04139"]),
                    .init("releaseName", .string("\(model)-\(set)")), .init("hasDashboards", true),
                    .init("defaultRange", 1), .init("defaultShowBreaks", true), .init("showDfa", false),
                    .init("showCorrelated", false), .init("showHeadAttribution", false),
                    .init("showUmap", false),
                ])
            ),
            (
                "source",
                owned([
                    .init("id", .string(source)), .init("modelId", .string(model)),
                    .init("setName", .string(set)),
                    .init("hasDashboards", true), .init("inferenceEnabled", false), .init("hfRepoId", .null),
                    .init("hfFolderId", .null), .init("num_prompts", .integer(index.documents)),
                    .init("num_tokens_in_prompt", .integer(index.window)),
                    .init("dataset", .string(index.corpus)), .init("notes", .null),
                ])
            ),
        ]
    }

    /// What every row of a feature begins with.
    private func key(_ expert: Expert, _ source: String) -> [JSONValue.Member] {
        [
            .init("modelId", .string(settings.model)), .init("layer", .string(source)),
            .init("index", .string("\(expert.dossier.expert.index)")),
        ]
    }

    private func feature(_ expert: Expert, _ group: Int, _ source: String, _ date: String) -> JSONValue {
        .object(
            key(expert, source) + expert.statistics + [
                .init("sourceSetName", .string(settings.set)), .init("creatorId", .string(settings.creator)),
                .init("createdAt", .string(date)), .init("maxActApprox", .number(expert.dossier.max)),
                .init("hasVector", false), .init("vector", []), .init("vectorLabel", .null),
                .init("vectorDefaultSteerStrength", .null), .init("hookName", .string(hookName(group))),
                .init("topkCosSimIndices", []), .init("topkCosSimValues", []),
            ])
    }

    private func activations(_ expert: Expert, _ source: String, _ date: String) -> [JSONValue] {
        expert.contexts.enumerated().map { number, context in
            let largest = context.scores.max() ?? 0
            return .object(
                [
                    .init(
                        "id",
                        .string("\(settings.model)-\(source)-\(expert.dossier.expert.index)-\(number)"))
                ] + key(expert, source) + [
                    .init("creatorId", .string(settings.creator)), .init("createdAt", .string(date)),
                    .init("tokens", context.tokens), .init("values", context.values),
                    .init("maxValue", .number(largest)),
                    .init("maxValueTokenIndex", .integer(context.scores.firstIndex(of: largest) ?? 0)),
                    .init("minValue", .number(context.scores.min() ?? 0)),
                    .init("dataIndex", .string("\(context.activation.document)")),
                    .init("dataSource", .string(index.corpus)), .init("dfaValues", []),
                    .init("lossValues", []),
                    .init("binMin", .number(context.lower)), .init("binMax", .number(context.upper)),
                    .init("binContains", .number(context.share)),
                    .init("qualifyingTokenIndex", .integer(context.activation.place)),
                ])
        }
    }

    private func explanations(_ expert: Expert, _ source: String, _ date: String) -> [JSONValue] {
        expert.dossier.explanations.enumerated().filter { $0.element.isCredible }.map { number, explanation in
            .object(
                [
                    .init(
                        "id",
                        .string(
                            "\(settings.model)-\(source)-\(expert.dossier.expert.index)-explanation-\(number)"
                        ))
                ] + key(expert, source) + [
                    .init("description", .string(explanation.text)),
                    .init("authorId", .string(settings.creator)), .init("notes", .string(explanation.prompt)),
                    .init("typeName", .null), .init("explanationModelName", .null), .init("embedding", .null),
                    .init("createdAt", .string(date)),
                ])
        }
    }
}
