import MonetCompute
import MonetFoundation

extension Checkpoint {
    /// How an edited checkpoint holds its mask.
    public enum EditResult: Sendable, Equatable {
        /// In the weights, which any reader runs; the number of right halves that are gone.
        case bakedIn(halves: Int)
        /// In a file beside them, which a reader must know.
        case carried
    }

    /// Writes a model with a mask made permanent: in the weights where its family can, else in a file beside them.
    ///
    /// - Parameters:
    ///   - model: loaded for conversion.
    ///   - mask: what to change, on top of the model's own mask.
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
        return .bakedIn(halves: baked.halves)
    }
}
