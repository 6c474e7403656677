import MonetFoundation

/// What a run writes down as it goes: `metrics.jsonl` and TensorBoard events.
final class Logs {
    let metrics: FileWriter
    let board: TensorBoardWriter

    init(_ directory: RunDirectory, _ state: RunDirectory.State) throws {
        metrics = try FileWriter(path: directory.metricsPath, appending: true)
        board = try TensorBoardWriter(folder: directory.path, continuing: state.events, step: state.step)
    }

    /// Writes one line of metrics and the scalars of a step.
    func write(_ members: [JSONValue.Member], _ scalars: [(String, Double)], step: Int) throws {
        try metrics.write(JSONValue.object(members).serialized() + "\n")
        try metrics.flush()
        try board.write(scalars, step: step)
    }

    /// Writes down how training goes, and with several processes what their exchange took.
    func write(
        _ progress: TrainingProgress, exchange: GradientExchange.Cost, _ configuration: RunConfiguration
    ) throws {
        let losses = progress.losses
        var scalars: [(String, Double)] = [
            ("loss", losses.languageModel), ("lr", progress.learningRate),
            ("grad_norm", progress.gradientNorm),
            ("tokens_per_second", progress.tokensPerSecond), ("peak_share", progress.peakShare),
        ]
        if !configuration.model.routerLayers.isEmpty {
            scalars += [
                ("total_loss", losses.total), ("uniformity", losses.uniformity),
                ("ambiguity", losses.ambiguity),
                ("selected_per_head", losses.selectedPerHead), ("unselected_experts", losses.unselectedShare),
            ]
        }
        if !configuration.preferences.isEmpty {
            scalars += [("margin", losses.preferenceMargin), ("accuracy", losses.preferenceAccuracy)]
        }
        if exchange.bytes > 0 {
            scalars += [
                ("exchange_bytes", Double(exchange.bytes)), ("exchange_seconds", exchange.seconds),
                ("exchange_wait_seconds", exchange.waited),
                ("parameter_bytes", Double(exchange.parameterBytes)),
                ("parameter_seconds", exchange.parameterSeconds),
            ]
        }
        try write(
            [.init("step", .integer(progress.step)), .init("tokens", .integer(progress.tokens))]
                + scalars.map { .init($0.0, .number($0.1)) },
            scalars.map { ("train/" + $0.0, $0.1) }, step: progress.step)
    }
}
