import MonetCompute
import MonetFoundation

extension Checkpoint {
    /// How an edited checkpoint stores its mask.
    public enum EditResult: Sendable, Equatable {
        /// In the weights, which any reader runs; the number of parts that changed, and what they are.
        case bakedIn(parts: Int, description: String)
        /// In a separate file, which a reader must support.
        case carried
    }

    /// Writes a model with a mask made permanent, in the weights if possible, otherwise in a separate file.
    ///
    /// - `model`: loaded for conversion.
    /// - `mask`: what to change, in addition to the model's own mask.
    /// - Throws: `ModelError.invalidInput` for quantized weights, `FileError`.
    public static func writeEdited(
        _ model: MonetLanguageModel, mask: UnitMask, dtype: DType, shardBytes: Int = 5 << 30,
        to folder: String
    ) throws -> EditResult {
        let c = model.configuration
        let mask = model.ownMask?.union(mask) ?? mask
        guard let baked = try c.feedForward.bake(mask, into: model.parameters.all, layerCount: c.layerCount)
        else {
            let edited = try MonetLanguageModel(
                configuration: c, parameters: model.parameters, ownMask: mask)
            try write(edited, dtype: dtype, shardBytes: shardBytes, to: folder)
            return .carried
        }
        var plain = c
        plain.expertMaskFile = nil
        try write(
            MonetLanguageModel(configuration: plain, parameters: ParameterSet(baked.parameters)),
            dtype: dtype, shardBytes: shardBytes, to: folder)
        return .bakedIn(parts: baked.parts, description: baked.description)
    }
}
