import Foundation
import MonetCompute
import MonetFoundation

/// A folder of adapters in `peft`'s layout: `adapter_config.json`, which names the checkpoint that they change, and
/// `adapter_model.safetensors`.
public enum AdapterFolder {
    static let configurationFile = "adapter_config.json"
    static let tensorFile = "adapter_model.safetensors"
    private static let prefix = "base_model.model."

    /// Whether a folder holds adapters instead of a model.
    public static func isOne(_ folder: String) -> Bool {
        FileManager.default.fileExists(atPath: folder + "/" + configurationFile)
            && !FileManager.default.fileExists(atPath: folder + "/" + Checkpoint.singleFile)
            && !FileManager.default.fileExists(atPath: folder + "/" + Checkpoint.indexFile)
    }

    /// Writes a model's adapters into an existing folder, with the model's configuration.
    ///
    /// - `base`: the checkpoint that they change.
    /// - Throws: `ModelError.invalidInput` for a model without adapters.
    public static func write(_ model: MonetLanguageModel, base: String, to folder: String) throws {
        guard let adapters = model.adapters else {
            throw ModelError.invalidInput(reason: "the model has no adapters to write")
        }
        let json: JSONValue = [
            "base_model_name_or_path": .string(base), "bias": "none", "fan_in_fan_out": false,
            "inference_mode": true, "init_lora_weights": true, "lora_alpha": .number(adapters.alpha),
            "lora_dropout": 0.0, "peft_type": "LORA", "r": .integer(adapters.rank),
            "target_modules": .array(LowRankAdapters.projections.map { .string($0 + "_proj") }),
            "task_type": "CAUSAL_LM",
        ]
        try AtomicFile.write(json.serialized(pretty: true) + "\n", to: folder + "/" + configurationFile)
        try AtomicFile.write(
            model.configuration.json().serialized(pretty: true) + "\n", to: folder + "/config.json")
        try SafetensorsWriter.write(
            model.parameters.all.filter { $0.role == .adapter }.map { (prefix + $0.name, $0.tensor) },
            metadata: ["format": "pt"], to: folder + "/" + tensorFile)
    }

    /// The checkpoint that a folder's adapters change: as named, from the working folder or from the adapters' own.
    ///
    /// - Throws: `FileError`, `ModelError.invalidConfiguration`.
    public static func base(of folder: String) throws -> String {
        let path = folder + "/" + configurationFile
        let json = try JSONValue(contentsOfFile: path)
        guard let name = json["base_model_name_or_path"]?.stringValue, !name.isEmpty else {
            throw ModelError.invalidConfiguration(
                file: path, key: "base_model_name_or_path",
                found: json["base_model_name_or_path"]?.serialized() ?? "absent", expected: "a checkpoint")
        }
        for candidate in [name, folder + "/" + name] {
            var isFolder: ObjCBool = false
            if FileManager.default.fileExists(atPath: candidate, isDirectory: &isFolder), isFolder.boolValue {
                return candidate
            }
        }
        guard !name.hasPrefix("/") else {
            throw ModelError.invalidConfiguration(
                file: path, key: "base_model_name_or_path", found: name,
                expected: "an existing folder: the place of the base model")
        }
        // A model of the hub, in Hugging Face's cache.
        return try HubCache().resolve(name)
    }

    /// The adapters and what they change, from a folder to the model at the end; adapters may change a model with
    /// adapters.
    ///
    /// - Throws: `ModelError.invalidConfiguration` if folders name each other in a circle.
    private static func chain(_ folder: String) throws -> [String] {
        var (result, known) = ([folder], Set<String>())
        while let last = result.last, isOne(last) {
            let path = URL(fileURLWithPath: last).resolvingSymlinksInPath().path
            guard known.insert(path).inserted else {
                throw ModelError.invalidConfiguration(
                    file: folder + "/" + configurationFile, key: "base_model_name_or_path", found: last,
                    expected: "a checkpoint that does not lead back to these adapters")
            }
            result.append(try base(of: last))
        }
        return result
    }

    /// The checkpoint of the whole model that a folder's adapters change.
    ///
    /// - Throws: as `base`.
    public static func model(of folder: String) throws -> String { try chain(folder).last ?? folder }

    /// A model with the adapters of a folder beside its weights; those of adapters before them are merged.
    ///
    /// - Throws: `FileError`, `ModelError`, `ComputeError`.
    public static func load(_ folder: String, for purpose: LoadPurpose) throws -> MonetLanguageModel {
        let chain = try chain(folder)
        var model = try MonetLanguageModel.load(chain.last ?? folder, for: purpose)
        for adapters in chain.dropLast().reversed() { model = try attach(adapters, to: model.merged()) }
        return model
    }

    /// A model with the adapters of a folder.
    ///
    /// - `model`: the base, as `load` gives it for the purpose.
    /// - Throws: `FileError`, `ModelError` naming the file and what does not fit.
    private static func attach(_ folder: String, to model: MonetLanguageModel) throws -> MonetLanguageModel {
        let path = folder + "/" + configurationFile
        let json = try JSONValue(contentsOfFile: path)
        func require(_ key: String, _ expected: String, _ holds: (JSONValue?) -> Bool) throws {
            guard holds(json[key]) else {
                throw ModelError.invalidConfiguration(
                    file: path, key: key, found: json[key]?.serialized() ?? "absent", expected: expected)
            }
        }
        try require("peft_type", "\"LORA\"") { $0?.stringValue == "LORA" }
        try require("r", "a rank from 1 to 65536") { (1...1 << 16).contains($0?.intValue ?? 0) }
        try require("lora_alpha", "a number above 0") { $0?.doubleValue ?? 0 > 0 }
        for key in ["use_dora", "use_rslora", "fan_in_fan_out"] {
            try require(key, "false") { $0?.boolValue != true }
        }
        try require("bias", "\"none\"") { $0 == nil || $0?.stringValue == "none" }
        // These change the weights of the base before adapters are trained.
        try require("init_lora_weights", "another start, which leaves the base as it is") { value in
            !["pissa", "olora", "corda", "loftq"].contains { value?.stringValue?.hasPrefix($0) ?? false }
        }
        let origin = try TunedOrigin(folder: folder)
        if let expected = origin?.fingerprints.first, expected != model.fingerprint {
            throw ModelError.foreignBase(
                adapters: folder, base: try base(of: folder), expected: expected, found: model.fingerprint)
        }
        for key in ["rank_pattern", "alpha_pattern"] {
            try require(key, "none") { $0?.members?.isEmpty ?? true }
        }
        let adapters = try LowRankAdapters(
            rank: json["r"]?.intValue ?? 0, alpha: json["lora_alpha"]?.doubleValue ?? 0)
        guard FileManager.default.fileExists(atPath: folder + "/" + tensorFile) else {
            throw ModelError.missingFile(folder: folder, name: tensorFile)
        }
        let file = try SafetensorsFile(path: folder + "/" + tensorFile)
        var known: Set<String> = []
        var tensors: [Parameter] = []
        for shape in adapters.shapes(model.configuration) {
            let name = prefix + shape.name
            // Files of peft may adapt fewer projections: the others change by nothing.
            guard file.contains(name) else {
                tensors.append(
                    Parameter(name: shape.name, tensor: Tensor(zeros: shape.shape), role: shape.role))
                continue
            }
            known.insert(name)
            let tensor = try file.tensor(name)
            guard tensor.shape == shape.shape else {
                throw ModelError.wrongShape(
                    file: file.path, tensor: name, expected: shape.shape, found: tensor.shape)
            }
            guard tensor.dtype.isReal else {
                throw ModelError.wrongDType(
                    file: file.path, tensor: name, expected: "F32, BF16 or F16", found: tensor.dtype.rawValue)
            }
            let own = tensor.converted(to: .float32).copy()
            if let error = own.nonFinite(named: name, in: file.path) { throw error }
            tensors.append(Parameter(name: shape.name, tensor: own, role: shape.role))
        }
        if let other = file.entries.first(where: { !known.contains($0.name) }) {
            throw ModelError.unexpectedTensor(file: file.path, tensor: other.name)
        }
        return try MonetLanguageModel(
            configuration: model.configuration, parameters: ParameterSet(model.parameters.all + tensors),
            ownMask: model.ownMask, adapters: adapters, tunedFrom: origin)
    }
}
