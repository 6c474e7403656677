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

    /// Writes a model with a mask made permanent.
    ///
    /// Horizontal experts with whole columns removed, that is (i, j) for every i, become zeros in V_j and
    /// b_j: nothing else uses these. Other masks are carried in a file: halves serve many experts.
    ///
    /// - Parameters:
    ///   - model: loaded for conversion.
    ///   - mask: all strengths, the model's own included.
    /// - Throws: `ModelError.invalidInput` for quantized weights, `FileError`.
    public static func writeEdited(
        _ model: MonetLanguageModel, mask: ExpertMask, dtype: DType, shardBytes: Int = 5 << 30,
        to folder: String
    ) throws -> EditResult {
        let c = model.configuration
        guard let columns = mask.removedColumns(of: c) else {
            let edited = try MonetLanguageModel(
                configuration: c, parameters: model.parameters, ownMask: mask)
            try write(edited, dtype: dtype, shardBytes: shardBytes, to: folder)
            return .carried
        }
        let parameters = model.parameters.all.map { parameter -> Parameter in
            for layer in 0..<c.layerCount {
                guard let removed = columns[layer / c.layersPerRouter] else { continue }
                let prefix = "model.layers.\(layer).moe."
                if parameter.name == prefix + "v.weight" {
                    let units = c.expertWidth
                    return parameter.zeroing(
                        columns: removed.flatMap { ($0 * units)..<(($0 + 1) * units) })
                }
                if parameter.name == prefix + "b" { return parameter.zeroing(rows: removed) }
            }
            return parameter
        }
        var plain = c
        plain.expertMaskFile = nil
        try write(
            MonetLanguageModel(configuration: plain, parameters: ParameterSet(parameters)), dtype: dtype,
            shardBytes: shardBytes, to: folder)
        return .bakedIn(halves: columns.values.reduce(0) { $0 + $1.count })
    }
}

extension ExpertMask {
    /// The right halves all of whose experts are removed, by group, if the mask is nothing but these and
    /// the experts are horizontal.
    func removedColumns(of configuration: MonetConfiguration) -> [Int: [Int]]? {
        guard configuration.feedForward == .horizontal else { return nil }
        var result: [Int: [Int]] = [:]
        for group in groups {
            let entries = entries(group: group)
            guard entries.allSatisfy({ $0.strength == 0 }) else { return nil }
            let columns = Dictionary(grouping: entries, by: { $0.index % experts })
            guard columns.values.allSatisfy({ $0.count == experts }) else { return nil }
            if !columns.isEmpty { result[group] = columns.keys.sorted() }
        }
        return result
    }
}

extension Parameter {
    fileprivate func zeroing(columns: [Int]) -> Parameter {
        let copy = tensor.converted(to: .float32).copy()
        for row in 0..<copy.rowCount {
            for column in columns { copy.pointer[row * copy.columnCount + column] = 0 }
        }
        return Parameter(name: name, tensor: copy, role: role)
    }

    fileprivate func zeroing(rows: [Int]) -> Parameter {
        let copy = tensor.converted(to: .float32).copy()
        for row in rows {
            for column in 0..<copy.columnCount { copy.pointer[row * copy.columnCount + column] = 0 }
        }
        return Parameter(name: name, tensor: copy, role: role)
    }
}
