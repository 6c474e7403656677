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
    @Option(
        help: ArgumentHelp(
            "Branch, tag or commit of a hub model in the cache. (default: main)", valueName: "name"))
    var revision: String?
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
        var stored: StoredModel?
        if let preset {
            configuration = preset.configuration
        } else {
            let folder = try HubCache().resolve(model ?? "", revision: revision)
            configuration = try Checkpoint.configuration(folder)
            stored = try StoredModel(folder, configuration)
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
                "stored": stored?.json ?? .null,
            ])
            return
        }
        try StandardOutput.write(summary.text(stored))
    }
}

/// What `monet info` shows about the files of a checkpoint.
private struct StoredModel {
    let units: UnitLayout
    let types: [(name: String, bytes: Int)]
    let files: Int
    let bytes: Int
    let removed: Int
    let scaled: Int

    /// Reads a folder, which also checks names, shapes and types.
    init(_ folder: String, _ configuration: MonetConfiguration) throws {
        let folder = AdapterFolder.isOne(folder) ? try AdapterFolder.model(of: folder) : folder
        let tensors = try Checkpoint.tensors(folder)
        _ = try tensors.parameters(for: configuration)
        var byType: [String: Int] = [:]
        for entry in tensors.files.values.flatMap(\.entries) {
            // Quantized rows are stored as bytes, and named by their ending.
            let kind = [".int8", ".int4"].first(where: entry.name.hasSuffix).map { String($0.dropFirst()) }
            byType[kind ?? entry.dtype.torchName, default: 0] += entry.range.count
        }
        types = byType.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { ($0.key, $0.value) }
        files = tensors.files.count
        bytes = try tensors.files.keys.reduce(0) {
            $0 + (try MappedFile(path: folder + "/" + $1).bytes.count)
        }
        units = configuration.feedForward.units(layerCount: configuration.layerCount)
        let mask = try configuration.expertMaskFile.map {
            try MaskFile(contentsOfFile: folder + "/" + $0, configuration: configuration).mask
        }
        let strengths =
            mask.map { mask in mask.groups.flatMap { mask.entries(group: $0).map(\.strength) } } ?? []
        removed = strengths.count { $0 == 0 }
        scaled = strengths.count - removed
    }

    var rows: [[String]] {
        var rows = [
            ["stored as", types.map { "\($0.name) \($0.bytes.byteText)" }.joined(separator: ", ")],
            ["weights on disk", "\(bytes.byteText) in \(files) file\(files == 1 ? "" : "s")"],
        ]
        if removed + scaled > 0 {
            rows.append([
                "removed \(units.kind.rawValue)",
                "\(removed.grouped) of \(units.count.grouped)"
                    + (scaled > 0 ? ", \(scaled.grouped) scaled" : ""),
            ])
        }
        return rows
    }

    var json: JSONValue {
        [
            "bytes_by_type": .object(types.map { .init($0.name, .integer($0.bytes)) }),
            "files": .integer(files), "bytes": .integer(bytes), "removed": .integer(removed),
            "scaled": .integer(scaled),
        ]
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

    private var rotary: String {
        let scaling =
            switch configuration.ropeScaling {
            case nil: ""
            case .linear(let factor): ", linear scaling by \(String(format: "%g", factor))"
            case .dynamic(let factor): ", dynamic scaling by \(String(format: "%g", factor))"
            }
        return "base \(String(format: "%g", configuration.ropeTheta))" + scaling
    }

    func bytes(_ dtype: DType) -> Int { configuration.parameterCount * dtype.byteCount }

    func text(_ stored: StoredModel?) -> String {
        let c = configuration
        let family = c.feedForward.summary
        var rows: [[String]] = [
            [family.first?.1 ?? ""], ["layers", "\(c.layerCount)"], ["width", "\(c.hiddenSize)"],
            ["attention heads", "\(c.attentionHeads) (\(c.keyValueHeads) key-value)"],
            ["context", "\(c.contextLength.grouped)"], ["rotary embedding", rotary],
            ["vocabulary", "\(c.vocabularySize.grouped)"],
        ]
        rows += family.dropFirst().map { [$0.0, $0.1] }
        if !c.routerLayers.isEmpty {
            rows.append(["routers in layers", c.routerLayers.map(String.init).joined(separator: ", ")])
        }
        if let stored { rows += stored.rows }
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
