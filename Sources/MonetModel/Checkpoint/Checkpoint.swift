import Foundation
import MonetCompute
import MonetFoundation

/// Checkpoint folders in the Hugging Face layout.
public enum Checkpoint {
    static let singleFile = "model.safetensors"
    static let maskFile = "expert_mask.safetensors"
    static let indexFile = "model.safetensors.index.json"
    private static let generationFile = "generation_config.json"

    /// What a folder holds that a new checkpoint may replace.
    public static let folder = FolderKind(name: "checkpoint folder", mark: "config.json") { name in
        companionEndings.contains(where: name.hasSuffix) || name.hasSuffix(".safetensors")
    }
    /// Endings of a checkpoint's files other than weights.
    private static let companionEndings = [".json", ".model", ".md", ".py", ".txt", ".jinja"]

    /// Reads the configuration of a checkpoint folder.
    public static func configuration(_ folder: String) throws -> MonetConfiguration {
        let path = folder + "/config.json"
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue
        else {
            throw FileError.unreadable(path: folder, reason: "it is not a checkpoint folder")
        }
        guard FileManager.default.fileExists(atPath: path) else {
            // peft writes none: the model is that of the base.
            if AdapterFolder.isOne(folder) { return try configuration(AdapterFolder.model(of: folder)) }
            throw ModelError.missingFile(folder: folder, name: "config.json")
        }
        var configuration = try MonetConfiguration(contentsOfFile: path)
        let generation = folder + "/" + generationFile
        if FileManager.default.fileExists(atPath: generation) {
            configuration.generation = try GenerationDefaults(
                contentsOfFile: generation, vocabularySize: configuration.vocabularySize)
        }
        return configuration
    }

    /// Maps the tensors of a checkpoint, from a single file or shards, by name.
    public static func tensors(_ folder: String) throws -> CheckpointTensors {
        let index = folder + "/" + indexFile
        let single = folder + "/" + singleFile
        if FileManager.default.fileExists(atPath: single) {
            let file = try SafetensorsFile(path: single)
            return CheckpointTensors(
                folder: folder, files: [singleFile: file],
                fileOfTensor: Dictionary(uniqueKeysWithValues: file.entries.map { ($0.name, singleFile) }))
        }
        guard FileManager.default.fileExists(atPath: index) else {
            throw ModelError.missingFile(folder: folder, name: "\(singleFile) or \(indexFile)")
        }
        let json = try JSONValue(contentsOfFile: index)
        guard let map = json["weight_map"]?.members else {
            throw ModelError.malformedSafetensors(file: index, tensor: nil, reason: "no weight_map")
        }
        var files: [String: SafetensorsFile] = [:]
        var fileOfTensor: [String: String] = [:]
        for member in map {
            guard let name = member.value.stringValue, !name.contains("/"), !name.isEmpty else {
                throw ModelError.malformedSafetensors(
                    file: index, tensor: member.key, reason: "its shard is not a file name")
            }
            if files[name] == nil {
                guard FileManager.default.fileExists(atPath: folder + "/" + name) else {
                    throw ModelError.missingFile(folder: folder, name: name)
                }
                files[name] = try SafetensorsFile(path: folder + "/" + name)
            }
            guard files[name]?.contains(member.key) ?? false else {
                throw ModelError.missingTensor(file: folder + "/" + name, tensor: member.key)
            }
            fileOfTensor[member.key] = name
        }
        for (name, file) in files {
            for entry in file.entries where fileOfTensor[entry.name] != name {
                throw ModelError.unexpectedTensor(file: file.path, tensor: entry.name)
            }
        }
        return CheckpointTensors(folder: folder, files: files, fileOfTensor: fileOfTensor)
    }

    /// Copies the files of a checkpoint folder other than configuration and weights: tokenizer, model
    /// card, generation settings, code.
    ///
    /// - `excluding`: names of files that do not hold for the copy.
    public static func copyCompanions(
        from source: String, to target: String, excluding: Set<String> = []
    ) throws {
        let own = [
            "config.json", generationFile, indexFile, AdapterFolder.configurationFile, "trainer_state.json",
            "log_positions.json",
        ]
        for name in try FileManager.default.contentsOfDirectory(atPath: source).sorted() {
            guard companionEndings.contains(where: name.hasSuffix), !own.contains(name),
                !excluding.contains(name),
                !name.hasPrefix(".")
            else {
                continue
            }
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: source + "/" + name, isDirectory: &isFolder),
                !isFolder.boolValue
            else { continue }
            let file = try MappedFile(path: source + "/" + name)
            try AtomicFile.write(to: target + "/" + name) { try $0.write(file.bytes) }
        }
    }

    /// Writes configuration and weights into an existing folder, in shards of at most `shardBytes`.
    ///
    /// - `quantization`: the format in which the large matrices are stored, in the packed layout.
    /// - Throws: `ModelError.invalidInput` for a model that is already packed or quantized.
    public static func write(
        _ model: MonetLanguageModel, dtype: DType, quantization: MonetConfiguration.Quantization? = nil,
        shardBytes: Int = 5 << 30, to folder: String
    ) throws {
        guard model.adapters == nil else {
            throw ModelError.invalidInput(
                reason: "the model has adapters, which a checkpoint of a whole model has not: merge them")
        }
        guard !model.parameters.isPacked(model.configuration), model.configuration.quantization == nil
        else {
            throw ModelError.invalidInput(
                reason:
                    "packed or quantized weights cannot be rewritten: convert the checkpoint they came from")
        }
        var configuration = model.configuration
        configuration.dtype = dtype
        configuration.quantization = quantization
        if let mask = model.ownMask {
            let name = configuration.expertMaskFile ?? maskFile
            configuration.expertMaskFile = name
            try MaskFile(mask: mask, model: model.fingerprint, recipe: ["kind": "edit"])
                .write(to: folder + "/" + name)
        }
        let module = try writeCode(of: configuration, to: folder)
        try AtomicFile.write(
            configuration.json(module: module).serialized(pretty: true) + "\n", to: folder + "/config.json")
        let generation =
            configuration.generation?.members ?? [
                .init("_from_model_config", true),
                .init("bos_token_id", configuration.beginTokenID.map { .integer($0) } ?? .null),
                .init(
                    "eos_token_id",
                    configuration.endTokenIDs.count == 1
                        ? .integer(configuration.endTokenIDs[0])
                        : .array(configuration.endTokenIDs.map { .integer($0) })),
                .init("transformers_version", "4.44.2"),
            ]
        try AtomicFile.write(
            JSONValue.object(generation).serialized(pretty: true) + "\n", to: folder + "/" + generationFile)

        // Packed tensors have other names than those of the files.
        if quantization != nil, let error = model.parameters.firstNonFinite() { throw error }
        let parameters =
            try quantization == nil
            ? model.parameters : model.parameters.packed(model.configuration).withRouterScreens()
        func storedType(_ parameter: Parameter) -> DType {
            parameter.storedType(dtype: dtype, quantization: quantization)
        }
        func width(_ parameter: Parameter) -> Int {
            let type = storedType(parameter)
            return parameter.tensor.rowCount * type.rowByteCount(columns: parameter.tensor.columnCount)
        }
        var shards: [[Parameter]] = [[]]
        var bytes = 0
        for parameter in parameters.all {
            let size = width(parameter)
            if bytes + size > shardBytes, !(shards.last?.isEmpty ?? true) {
                shards.append([])
                bytes = 0
            }
            shards[shards.count - 1].append(parameter)
            bytes += size
        }
        func name(_ index: Int) -> String {
            shards.count == 1
                ? singleFile : String(format: "model-%05d-of-%05d.safetensors", index + 1, shards.count)
        }
        var map: [JSONValue.Member] = []
        for (index, shard) in shards.enumerated() {
            let entries = shard.map { parameter in
                let type = storedType(parameter)
                return SafetensorsWriter.Entry(
                    name: parameter.name + (QuantizedFormat(type)?.ending ?? ""), source: parameter.tensor,
                    dtype: type, checkedName: parameter.name)
            }
            try SafetensorsWriter.write(
                entries, metadata: ["format": "pt"], to: folder + "/" + name(index))
            map += entries.map { .init($0.name, .string(name(index))) }
        }
        if shards.count > 1 {
            let total = parameters.all.reduce(0) { $0 + width($1) }
            let json: JSONValue = ["metadata": ["total_size": .integer(total)], "weight_map": .object(map)]
            try AtomicFile.write(json.serialized(pretty: true) + "\n", to: folder + "/" + indexFile)
        }
    }
}

extension Checkpoint {
    /// Writes the family's PyTorch code, unless a published checkpoint's own lies in the folder already.
    ///
    /// - Returns: the name of the module that opens the checkpoint; nil if transformers needs none.
    private static func writeCode(of configuration: MonetConfiguration, to folder: String) throws -> String? {
        let identity = type(of: configuration.feedForward).identity
        guard let code = identity.code else { return nil }
        var module = code.module
        let path = folder + "/" + module + ".py"
        if FileManager.default.fileExists(atPath: path),
            !(try TextFile.read(path)).contains("class Masked\(identity.architecture)")
        {
            // Not this package's: it stays, and cannot run masks.
            if configuration.expertMaskFile == nil { return module }
            module += "_masked"
        }
        try AtomicFile.write(to: folder + "/" + module + ".py") { try $0.write(code.source) }
        return module
    }
}

extension Parameter {
    /// The type in which a checkpoint stores the tensor: large matrices are quantized if requested, routers
    /// never, because rounding changes the selection; routers' statistics keep their own type.
    func storedType(dtype: DType, quantization: MonetConfiguration.Quantization?) -> DType {
        guard role.isParameter else { return tensor.dtype }
        guard let quantization else { return dtype }
        return switch role {
        case .linear, .expert: quantization == .int8 ? .int8Rows : .int4Rows
        case .embedding: .int8Rows
        default: dtype
        }
    }
}

/// The mapped tensors of a checkpoint folder.
public struct CheckpointTensors: Sendable {
    /// The folder.
    public let folder: String
    /// The files by name.
    public let files: [String: SafetensorsFile]
    /// The file that holds each tensor.
    public let fileOfTensor: [String: String]

    /// Path of the file that holds `name`; the folder if none does.
    public func path(of name: String) -> String {
        fileOfTensor[name].map { folder + "/" + $0 } ?? folder
    }

    /// A view of the tensor `name`.
    public func tensor(_ name: String) throws -> Tensor {
        guard let file = fileOfTensor[name].flatMap({ files[$0] }) else {
            throw ModelError.missingTensor(file: folder, tensor: name)
        }
        return try file.tensor(name)
    }

    /// The tensors that `configuration` requires, checked for names, shapes and types.
    ///
    /// - `trainable`: whether to copy them to writable float32 memory.
    /// - Throws: `ModelError` for a missing, unexpected or ill-shaped tensor.
    public func parameters(for configuration: MonetConfiguration, trainable: Bool = false) throws
        -> ParameterSet
    {
        guard !trainable || configuration.quantization == nil else {
            throw ModelError.invalidInput(reason: "\(folder): quantized weights cannot be trained")
        }
        var known: Set<String> = []
        var result: [Parameter] = []
        for shape in configuration.shapes(configuration.quantization == nil ? .checkpoint : .packed) {
            let (storedName, quantized) = try storedName(shape)
            known.insert(storedName)
            let file = path(of: storedName)
            var tensor: Tensor
            if let quantized, let source = fileOfTensor[storedName].flatMap({ files[$0] }) {
                guard configuration.quantization != nil else {
                    throw ModelError.unexpectedTensor(file: file, tensor: storedName)
                }
                tensor = try source.quantizedRows(storedName, quantized, shape: shape.shape)
            } else {
                tensor = try self.tensor(storedName)
            }
            guard tensor.shape == shape.shape else {
                throw ModelError.wrongShape(
                    file: file, tensor: shape.name, expected: shape.shape, found: tensor.shape)
            }
            guard tensor.dtype.isReal != (shape.role == .batchCount), tensor.dtype != .uint8 else {
                throw ModelError.wrongDType(
                    file: file, tensor: shape.name,
                    expected: shape.role == .batchCount ? "I64" : "F32, BF16 or F16",
                    found: tensor.dtype.rawValue)
            }
            switch shape.role {
            case .runningMean, .runningVariance: tensor = tensor.converted(to: .float32).copy()
            case .routerScreen, .routerScreenBounds:
                let expected: DType = shape.role == .routerScreen ? .int8Rows : .float32
                guard tensor.dtype == expected else {
                    throw ModelError.wrongDType(
                        file: file, tensor: shape.name, expected: expected.rawValue,
                        found: tensor.dtype.rawValue)
                }
            case .batchCount:
                guard let count = tensor.integers().first else {
                    throw ModelError.wrongShape(
                        file: file, tensor: shape.name, expected: shape.shape, found: tensor.shape)
                }
                tensor = Tensor(scalar: Int64(count))
            default:
                if trainable {
                    tensor = tensor.dtype == .float32 ? tensor.copy() : tensor.converted(to: .float32)
                }
            }
            result.append(Parameter(name: shape.name, tensor: tensor, role: shape.role))
        }
        // Tied checkpoints may repeat the head, and old Llama ones contain their rotary frequencies.
        if configuration.tieWordEmbeddings { known.insert("lm_head.weight") }
        for name in fileOfTensor.keys.sorted()
        where !known.contains(name) && !name.hasSuffix("rotary_emb.inv_freq") {
            throw ModelError.unexpectedTensor(file: path(of: name), tensor: name)
        }
        return ParameterSet(result)
    }

    /// The name under which a tensor is stored: its own, or with the suffix of a quantized format.
    private func storedName(_ shape: TensorShape) throws -> (name: String, quantized: DType?) {
        if fileOfTensor[shape.name] != nil { return (shape.name, nil) }
        for format in QuantizedFormat.allCases where fileOfTensor[shape.name + format.ending] != nil {
            return (shape.name + format.ending, format.dtype)
        }
        throw ModelError.missingTensor(
            file: files.count == 1 ? path(of: fileOfTensor.keys.first ?? "") : folder, tensor: shape.name)
    }
}

/// The suffixes that mark quantized tensors in files.
enum QuantizedFormat: CaseIterable {
    case int8
    case int4

    var ending: String { self == .int8 ? ".int8" : ".int4" }
    var dtype: DType { self == .int8 ? .int8Rows : .int4Rows }

    init?(_ dtype: DType) {
        switch dtype {
        case .int8Rows: self = .int8
        case .int4Rows: self = .int4
        default: return nil
        }
    }
}

extension Checkpoint {
    /// Weights up to this size are checked for NaN and infinities when a model is loaded, which takes a fraction
    /// of a second; larger ones would have to be read from the disk first.
    static let checkedBytes = 1 << 30
}

/// The purpose for which a model is loaded.
public enum LoadPurpose: Sendable {
    /// Mapped weights, in the layout that a device runs fastest.
    case inference
    /// Writable float32 copies.
    case training
    /// Mapped, as stored.
    case conversion
}

extension MonetLanguageModel {
    /// Opens a checkpoint folder.
    ///
    /// - `backend`: the device that weights for inference and training are put on.
    /// - Throws: `FileError`, `ModelError`, `ComputeError`.
    public static func load(
        _ folder: String, for purpose: LoadPurpose = .inference, on backend: any Backend = CPUBackend()
    ) throws -> MonetLanguageModel {
        if AdapterFolder.isOne(folder) {
            let purposeOfBase = purpose == .inference ? .conversion : purpose
            let model = try AdapterFolder.load(folder, for: purposeOfBase).merged()
            switch purpose {
            case .inference: return try model.prepared(on: backend)
            case .training: return try model.moved(to: backend)
            case .conversion: return model
            }
        }
        let configuration = try Checkpoint.configuration(folder)
        let tensors = try Checkpoint.tensors(folder)
        if purpose == .training {
            try MemoryLimits.require(
                MemoryLimits.product(configuration.parameterCount, 4), for: "\(folder): float32 weights")
        }
        let parameters = try tensors.parameters(for: configuration, trainable: purpose == .training)
        // Large models are mapped, and what runs is checked as it runs.
        if purpose == .training || (purpose == .inference && parameters.byteCount <= Checkpoint.checkedBytes)
        {
            if let error = parameters.firstNonFinite(files: tensors.path) { throw error }
        }
        let mask = try configuration.expertMaskFile.map {
            guard FileManager.default.fileExists(atPath: folder + "/" + $0) else {
                throw ModelError.missingFile(folder: folder, name: $0)
            }
            return try MaskFile(contentsOfFile: folder + "/" + $0, configuration: configuration).mask
        }
        let model = try MonetLanguageModel(
            configuration: configuration, parameters: parameters, ownMask: mask,
            tunedFrom: try TunedOrigin(folder: folder))
        switch purpose {
        case .inference: return try model.prepared(on: backend)
        case .training: return try model.moved(to: backend)
        case .conversion: return model
        }
    }
}
