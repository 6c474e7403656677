import MonetCompute
import MonetModel

/// AdamW with decoupled decay (Loshchilov, Hutter 2019).
public final class AdamW {
    /// The optimizer's hyperparameters.
    public struct Settings: Sendable {
        public var beta1: Double
        public var beta2: Double
        public var epsilon: Double
        public var weightDecay: Double
        /// Whether weight decay applies to norms and biases too.
        public var decaysEverything: Bool

        /// Collects the hyperparameters.
        public init(
            beta1: Double, beta2: Double, epsilon: Double, weightDecay: Double, decaysEverything: Bool
        ) {
            self.beta1 = beta1
            self.beta2 = beta2
            self.epsilon = epsilon
            self.weightDecay = weightDecay
            self.decaysEverything = decaysEverything
        }
    }

    private let settings: Settings
    private let parameters: [Parameter]
    private let moments: [(first: Tensor, second: Tensor)]
    /// The number of updates so far.
    public private(set) var step = 0

    /// An optimizer before its first step.
    public init(_ parameters: [Parameter], settings: Settings, on backend: any Backend = CPUBackend()) throws
    {
        self.parameters = parameters
        self.settings = settings
        moments = try parameters.map {
            (
                try backend.zeros($0.tensor.shape, dtype: .float32),
                try backend.zeros($0.tensor.shape, dtype: .float32)
            )
        }
    }

    /// ‖gradient‖ over all parameters.
    public func gradientNorm(_ variables: ParameterVariables, on backend: any Backend = CPUBackend()) throws
        -> Double
    {
        var sum = 0.0
        for parameter in parameters {
            if let gradient = variables.gradient(of: parameter) { sum += try backend.sumOfSquares(gradient) }
        }
        return sum.squareRoot()
    }

    /// Updates every parameter that has a gradient, after scaling it by `gradientScale`.
    public func update(
        _ variables: ParameterVariables, learningRate: Double, gradientScale: Double,
        on backend: any Backend = CPUBackend()
    ) throws {
        step += 1
        for (parameter, moment) in zip(parameters, moments) {
            guard let gradient = variables.gradient(of: parameter) else { continue }
            let decays = settings.decaysEverything || !parameter.role.isNormOrBias
            try backend.adamWStep(
                AdamWStep(
                    learningRate: Float(learningRate), beta1: Float(settings.beta1),
                    beta2: Float(settings.beta2),
                    epsilon: Float(settings.epsilon), weightDecay: decays ? Float(settings.weightDecay) : 0,
                    step: step, gradientScale: Float(gradientScale)),
                parameter: parameter.tensor, gradient: gradient, moment1: moment.first, moment2: moment.second
            )
        }
    }

    // MARK: State

    private static let secondMoment = "exp_avg_sq."

    /// The moments under the names that a checkpoint uses.
    public func state() -> [(name: String, tensor: Tensor)] {
        zip(parameters, moments).flatMap { parameter, moment in
            [
                ("exp_avg.\(parameter.name)", moment.first),
                (Self.secondMoment + parameter.name, moment.second),
            ]
        }
    }

    /// Restores what `state` returned.
    ///
    /// - Throws: `ModelError` if a tensor is missing or too many, has another shape, or holds numbers that no
    ///   update leaves.
    public func restore(_ file: SafetensorsFile, step: Int) throws {
        for (name, tensor) in state() {
            let saved = try file.tensor(name)
            guard saved.shape == tensor.shape, saved.dtype == .float32 else {
                throw ModelError.wrongShape(
                    file: file.path, tensor: name, expected: tensor.shape, found: saved.shape)
            }
            let values = saved.floats()
            if let bad = values.first(where: { !$0.isFinite || ($0 < 0 && name.hasPrefix(Self.secondMoment)) }
            ) {
                throw ModelError.malformedSafetensors(
                    file: file.path, tensor: name, reason: "\(bad) is no value that AdamW leaves")
            }
            try tensor.write(values)
        }
        let known = Set(state().map(\.name))
        if let surplus = file.entries.first(where: { !known.contains($0.name) }) {
            throw ModelError.unexpectedTensor(file: file.path, tensor: surplus.name)
        }
        self.step = step
    }
}
