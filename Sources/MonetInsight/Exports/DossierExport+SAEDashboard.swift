import MonetFoundation

extension DossierExport {
    private static let batchSize = 256

    /// Writes batches as SAEDashboard makes them: a folder for each group, `{layer}-{set}`, with `batch-0.json` and so on, and
    /// the experts left out in `skipped_indexes.json`.
    ///
    /// - `progress`: called with the group and its experts that are done; false stops.
    /// - Throws: `FileError`, `CancellationError` when stopped; nothing is then written.
    public func writeSAEDashboard(
        to path: String, progress: (_ group: Int, _ experts: Int) -> Bool = { _, _ in true }
    ) throws {
        try AtomicFile.writeFolder(path) { folder in
            for group in groups {
                let own = folder + "/\(layer(group))-\(settings.set)"
                try AtomicFile.createFolder(own)
                var batches = 0
                var written: Set<Int> = []
                try forEachBlock(of: group, size: Self.batchSize, progress: { progress(group, $0) }) {
                    block in
                    let json: JSONValue = [
                        "model_id": .string(settings.model), "layer": .integer(layer(group)),
                        "sae_set": .string(settings.set), "sae_id_suffix": .null,
                        "features": .array(block.experts.map(feature)),
                    ]
                    try AtomicFile.write(json.serialized(), to: own + "/batch-\(batches).json")
                    written.formUnion(block.experts.map(\.dossier.expert.index))
                    batches += 1
                }
                let skipped = (0..<index.units.unitsPerGroup).filter { !written.contains($0) }
                let json: JSONValue = [
                    "model_id": .string(settings.model), "layer": .string("\(layer(group))"),
                    "sae_set": .string(settings.set), "log_sparsity": .number(-5),
                    "skipped_indexes": .array(skipped.map { .integer($0) }),
                ]
                try AtomicFile.write(json.serialized(), to: own + "/skipped_indexes.json")
            }
        }
    }

    private func feature(_ expert: Expert) -> JSONValue {
        .object(
            [.init("feature_index", .integer(expert.dossier.expert.index))] + expert.statistics + [
                .init("n_prompts_total", .integer(index.documents)),
                .init("n_tokens_in_prompt", .integer(index.window)), .init("dataset", .string(index.corpus)),
                .init(
                    "activations",
                    .array(
                        expert.contexts.map { context in
                            [
                                "bin_min": .number(context.lower), "bin_max": .number(context.upper),
                                "bin_contains": .number(context.share), "tokens": context.tokens,
                                "values": context.values,
                                "qualifying_token_index": .integer(context.activation.place),
                            ]
                        })), .init("vector", []),
            ])
    }
}
