import Foundation
import MonetCompute
import MonetFoundation

extension MonetLanguageModel {
    /// A model with random weights: normal with the configuration's deviation, with biases 0 and norms 1.
    ///
    /// - `seed`: equal seeds give equal weights, on every machine and for every dtype before rounding.
    /// - `dtype`: type of the parameters; routers' statistics are always float32.
    public static func random(
        _ configuration: MonetConfiguration, seed: UInt64, dtype: DType = .float32
    ) throws -> MonetLanguageModel {
        try configuration.validate()
        try MemoryLimits.require(
            MemoryLimits.product(configuration.parameterCount, dtype.byteCount),
            for: "a model of \(configuration.parameterCount.grouped) parameters")
        let parameters = configuration.shapes().map { shape in
            let tensor: Tensor
            switch shape.role {
            case .norm: tensor = Tensor(filled: shape.shape, with: 1).converted(to: dtype)
            case .bias, .expertBias: tensor = Tensor(zeros: shape.shape, dtype: dtype)
            case .runningMean: tensor = Tensor(zeros: shape.shape)
            case .runningVariance: tensor = Tensor(filled: shape.shape, with: 1)
            case .batchCount: tensor = Tensor(scalar: 0)
            case .routerScreen, .routerScreenBounds: tensor = Tensor(zeros: shape.shape)
            case .embedding, .linear, .router, .expert, .adapter:
                // Each name has its own random stream: one tensor's values do not depend on the others.
                tensor = normal(
                    shape.shape, deviation: Float(configuration.initializerRange), dtype: dtype,
                    seed: seed ^ StableHash.of(shape.name))
            }
            return Parameter(name: shape.name, tensor: tensor, role: shape.role)
        }
        return try MonetLanguageModel(configuration: configuration, parameters: ParameterSet(parameters))
    }

    /// Sets the routers' running statistics to those of `tokens` random tokens, so that a model with random
    /// weights selects as many experts as a trained one.
    public func calibrateRouters(tokens: Int, seed: UInt64, on backend: any Backend = CPUBackend()) throws {
        var generator = SplitMix64(seed: seed)
        let ids = (0..<tokens).map { _ in
            Int32(generator.next() % UInt64(configuration.vocabularySize))
        }
        var input = ForwardInput([ids])
        input.statistics = .batch
        try updateRouters(with: forward(input, on: backend).routerStatistics, momentum: 1)
    }

    /// Blocks of numbers, each from its own random stream.
    private static func normal(_ shape: [Int], deviation: Float, dtype: DType, seed: UInt64) -> Tensor {
        Tensor(shape: shape, dtype: dtype, blocks: 1 << 16) { index, count in
            var generator = SplitMix64(seed: seed &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15)
            var values: [Float] = []
            values.reserveCapacity(count + 1)
            while values.count < count {
                let (first, second) = generator.nextNormalPair()
                values.append(Float(first) * deviation)
                values.append(Float(second) * deviation)
            }
            return Array(values.prefix(count))
        }
    }
}
