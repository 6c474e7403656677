import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Describe a checkpoint: configuration, parameters, memory, experts.",
        discussion: """
            EXAMPLES
              monet info checkpoints/demo
              monet info checkpoints/demo --json
              monet info --preset 4.1B-hd
            """)

    @Argument(help: "Checkpoint folder, or the name of a hub model in Hugging Face's cache.")
    var model: String?
    @Option(help: "Describe a preset instead.")
    var preset: PresetName?
    @Flag(help: "JSON instead of tables.")
    var json = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if (model == nil) == (preset == nil) {
            throw ValidationError("Give a checkpoint folder or --preset.")
        }
    }

    func run() throws {
        let configuration: MonetConfiguration
        if let preset {
            configuration = preset.configuration
        } else {
            let folder = try HubCache().resolve(model ?? "")
            configuration = try Checkpoint.configuration(folder)
            // This also checks names, shapes and types.
            _ = try Checkpoint.tensors(folder).parameters(for: configuration)
        }
        let summary = ModelSummary(configuration)
        let units = configuration.feedForward.units(layerCount: configuration.layerCount)
        if json {
            try StandardOutput.write([
                "config": configuration.json(), "parameters": .integer(configuration.parameterCount),
                "parts": .object(summary.parts.map { .init($0.name, .integer($0.parameters)) }),
                "bytes": .object(
                    ModelSummary.dtypes.map { .init($0.torchName, .integer(summary.bytes($0))) }),
                "\(units.kind.rawValue)_per_layer": .integer(units.unitsPerGroup),
                "router_layers": .array(configuration.routerLayers.map { .integer($0) }),
            ])
            return
        }
        try StandardOutput.write(summary.text)
    }
}

/// What `monet info` shows about a configuration.
private struct ModelSummary {
    let configuration: MonetConfiguration
    let parts: [(name: String, parameters: Int)]
    static let dtypes: [DType] = [.float32, .bfloat16]

    init(_ configuration: MonetConfiguration) {
        self.configuration = configuration
        func sum(_ shapes: [TensorShape], _ belongs: (TensorShape) -> Bool) -> Int {
            shapes.filter { $0.role.isParameter && belongs($0) }.reduce(0) { $0 + $1.count }
        }
        let shapes = configuration.shapes()
        let ofFamily = (0..<configuration.layerCount).flatMap {
            configuration.feedForward.tensors(layer: $0, hiddenSize: configuration.hiddenSize)
        }
        let all: [(String, Int)] = [
            ("embedding", sum(shapes) { $0.name.contains("embed_tokens") }),
            ("attention", sum(shapes) { $0.name.contains(".self_attn.") }),
            ("routers", sum(ofFamily) { $0.role == .router }),
            ("experts", sum(ofFamily) { $0.role.isOfExperts }),
            ("feed-forward", sum(ofFamily) { $0.role != .router && !$0.role.isOfExperts }),
            ("norms", sum(shapes) { $0.role == .norm }),
            ("output head", sum(shapes) { $0.name.hasPrefix("lm_head") }),
        ]
        parts = all.filter { $0.1 > 0 }.map { (name: $0.0, parameters: $0.1) }
    }

    func bytes(_ dtype: DType) -> Int { configuration.parameterCount * dtype.byteCount }

    var text: String {
        let c = configuration
        let family = c.feedForward.summary
        var rows: [[String]] = [
            [family.first?.1 ?? ""], ["layers", "\(c.layerCount)"], ["width", "\(c.hiddenSize)"],
            ["attention heads", "\(c.attentionHeads) (\(c.keyValueHeads) key-value)"],
            ["context", "\(c.contextLength.grouped)"], ["vocabulary", "\(c.vocabularySize.grouped)"],
        ]
        rows += family.dropFirst().map { [$0.0, $0.1] }
        if !c.routerLayers.isEmpty {
            rows.append(["routers in layers", c.routerLayers.map(String.init).joined(separator: ", ")])
        }
        let total = c.parameterCount
        let header = ["part", "parameters", "share"] + Self.dtypes.map(\.torchName)
        let table =
            [header]
            + (parts + [(name: "total", parameters: total)]).map { part in
                [
                    part.name, part.parameters.grouped,
                    (100 * Double(part.parameters) / Double(max(1, total))).text(1) + "%",
                ] + Self.dtypes.map { (part.parameters * $0.byteCount).byteText }
            }
        return rows.map { $0.count == 1 ? $0[0] : $0[0].padded(27) + $0[1] }.joined(separator: "\n") + "\n\n"
            + alignedTable(table)
    }
}

extension String {
    fileprivate func padded(_ width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}
