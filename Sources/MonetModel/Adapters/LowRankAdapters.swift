import Foundation
import MonetCompute
import MonetFoundation

/// Low-rank adapters of the attention's projections (LoRA, Hu et al. 2021, arXiv 2106.09685): W x becomes
/// W x + α/r · B (A x), with A `[r, in]` and B `[out, r]`.
///
/// Names of tensors and files are those of `peft`, so that either reads what the other wrote.
public struct LowRankAdapters: Sendable, Equatable {
    /// r, the rank of the change of each projection.
    public let rank: Int
    /// α: the change is multiplied by α / r.
    public let alpha: Double

    /// - Throws: `ModelError.invalidInput` for sizes that no model has.
    public init(rank: Int, alpha: Double) throws {
        guard (1...1 << 16).contains(rank), alpha.isFinite, alpha > 0 else {
            throw ModelError.invalidInput(
                reason:
                    "adapters of rank \(rank) and alpha \(alpha), expected a rank from 1 to 65536 and an alpha "
                    + "above 0")
        }
        self.rank = rank
        self.alpha = alpha
    }

    /// α / r.
    var scale: Float { Float(alpha / Double(rank)) }

    /// The projections that have adapters.
    static let projections = ["q", "k", "v", "o"]

    /// The number of the adapters' values.
    public func parameterCount(_ configuration: MonetConfiguration) -> Int {
        shapes(configuration).reduce(0) { $0 + $1.count }
    }

    /// The adapters' tensors of a model.
    func shapes(_ configuration: MonetConfiguration) -> [TensorShape] {
        (0..<configuration.layerCount).flatMap { layer in
            Self.projections.flatMap { name -> [TensorShape] in
                let prefix = "model.layers.\(layer).self_attn.\(name)_proj."
                guard let weight = configuration.shapes().first(where: { $0.name == prefix + "weight" })
                else {
                    return []
                }
                return [
                    TensorShape(
                        name: prefix + "lora_A.weight", shape: [rank, weight.shape[1]], role: .adapter),
                    TensorShape(
                        name: prefix + "lora_B.weight", shape: [weight.shape[0], rank], role: .adapter),
                ]
            }
        }
    }
}

extension MonetLanguageModel {
    /// The model with adapters that change nothing yet: A is random as in `peft` (uniform within 1/√in), B is 0.
    ///
    /// - `seed`: equal seeds give equal adapters.
    public func with(_ adapters: LowRankAdapters, seed: UInt64, on backend: any Backend = CPUBackend()) throws
        -> MonetLanguageModel
    {
        let new = try adapters.shapes(configuration).map { shape -> Parameter in
            let tensor: Tensor
            if shape.name.hasSuffix("lora_A.weight") {
                var generator = SplitMix64(seed: seed ^ StableHash.of(shape.name))
                let bound = 1 / Double(shape.shape[1]).squareRoot()
                tensor = Tensor(
                    (0..<shape.count).map { _ in
                        Float((2 * Double(generator.next() >> 11) * 0x1p-53 - 1) * bound)
                    }, shape: shape.shape)
            } else {
                tensor = Tensor(zeros: shape.shape)
            }
            return Parameter(name: shape.name, tensor: try backend.tensor(tensor), role: shape.role)
        }
        return try MonetLanguageModel(
            configuration: configuration, parameters: ParameterSet(parameters.all + new), ownMask: ownMask,
            adapters: adapters, tunedFrom: tunedFrom)
    }

    /// The model with its adapters added into the projections, W + α/r · B A, in the weights' own type; itself if it has
    /// none.
    ///
    /// - Throws: `ModelError.invalidInput` for packed or quantized weights.
    public func merged() throws -> MonetLanguageModel {
        guard let adapters else { return self }
        guard configuration.quantization == nil else {
            throw ModelError.invalidInput(reason: "adapters cannot be merged into quantized weights")
        }
        var result: [Parameter] = []
        for parameter in parameters.all where parameter.role != .adapter {
            let prefix = String(parameter.name.dropLast("weight".count))
            guard parameter.role == .linear, let a = try? parameters(prefix + "lora_A.weight"),
                let b = try? parameters(prefix + "lora_B.weight")
            else {
                result.append(parameter)
                continue
            }
            let (rows, columns, rank) = (
                parameter.tensor.rowCount, parameter.tensor.columnCount, adapters.rank
            )
            var values = parameter.tensor.floats()
            let (left, right) = (b.tensor.floats(), a.tensor.floats())
            for row in 0..<rows {
                var change = [Double](repeating: 0, count: columns)
                for place in 0..<rank {
                    let factor = Double(adapters.scale) * Double(left[row * rank + place])
                    if factor == 0 { continue }
                    for column in 0..<columns {
                        change[column] += factor * Double(right[place * columns + column])
                    }
                }
                for column in 0..<columns {
                    values[row * columns + column] = Float(
                        Double(values[row * columns + column]) + change[column])
                }
            }
            let tensor = Tensor(values, shape: parameter.tensor.shape).converted(to: parameter.tensor.dtype)
            result.append(Parameter(name: parameter.name, tensor: tensor, role: parameter.role))
        }
        return try MonetLanguageModel(
            configuration: configuration, parameters: ParameterSet(result), ownMask: ownMask,
            tunedFrom: tunedFrom)
    }
}
