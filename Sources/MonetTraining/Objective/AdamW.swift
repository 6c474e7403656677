import MonetCompute
import MonetModel
import MonetProcesses

/// AdamW with decoupled decay (Loshchilov, Hutter 2019).
///
/// With several processes, each keeps the moments of its own pieces of the parameters and updates only these.
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
    let shards: ParameterShards
    private let communicator: any Communicator
    /// The moments of each parameter; with several processes, empty.
    private let whole: [Moments]
    /// The moments of each piece; nil for those of other processes.
    private let moments: [Moments?]
    /// The number of updates so far.
    public private(set) var step = 0

    /// What sending the last step's parameters took.
    private(set) var parameterCost = (bytes: 0, seconds: 0.0)
    private typealias Moments = (first: Tensor, second: Tensor)

    /// An optimizer before its first step.
    public init(
        _ parameters: [Parameter], settings: Settings, on backend: any Backend = CPUBackend(),
        communicator: any Communicator = SingleProcess()
    ) throws {
        func zeros(_ shape: [Int]) throws -> Moments {
            (try backend.zeros(shape, dtype: .float32), try backend.zeros(shape, dtype: .float32))
        }
        self.parameters = parameters
        self.settings = settings
        self.communicator = communicator
        let shards = ParameterShards(
            parameters, rank: communicator.rank, processes: communicator.count)
        self.shards = shards
        let whole = communicator.isShared ? [] : try parameters.map { try zeros($0.tensor.shape) }
        self.whole = whole
        moments = try shards.pieces.indices.map { piece in
            guard shards.isOwn(piece) else { return nil }
            guard communicator.isShared else {
                let moment = whole[shards.pieces[piece].parameter]
                return (shards.part(piece, of: moment.first), shards.part(piece, of: moment.second))
            }
            return try zeros([shards.pieces[piece].range.count])
        }
    }

    /// ‖gradient‖ over all parameters, the same on every process.
    ///
    /// - Throws: `ProcessError`, `ComputeError`.
    public func gradientNorm(_ variables: ParameterVariables, on backend: any Backend = CPUBackend()) throws
        -> Double
    {
        try gradientNorm(parameters.map { variables.gradient(of: $0) }, on: backend)
    }

    /// The same for the gradients of all parameters, nil for parameters that have none.
    func gradientNorm(_ gradients: [Tensor?], on backend: any Backend) throws -> Double {
        var own: [Double] = []
        for piece in shards.pieces.indices where shards.isOwn(piece) {
            guard let gradient = gradients[shards.pieces[piece].parameter] else { continue }
            own.append(try backend.sumOfSquares(shards.part(piece, of: gradient)))
        }
        var left = try communicator.gather(own).map { $0[...] }
        var sum = 0.0
        for (parameter, pieces) in shards.piecesOfParameter.enumerated() where gradients[parameter] != nil {
            var squares = 0.0
            for piece in pieces {
                let owner = shards.owner(of: piece)
                guard let value = left[owner].popFirst() else {
                    throw ProcessError.unexpectedAnswer(
                        rank: owner, expected: "norms of its pieces", found: "fewer")
                }
                squares += value
            }
            sum += squares
        }
        return sum.squareRoot()
    }

    /// Updates every parameter that has a gradient, after scaling it by `gradientScale`.
    public func update(
        _ variables: ParameterVariables, learningRate: Double, gradientScale: Double,
        on backend: any Backend = CPUBackend()
    ) throws {
        try update(
            parameters.map { variables.gradient(of: $0) }, learningRate: learningRate,
            gradientScale: gradientScale, on: backend)
    }

    /// The same with the gradients of all parameters. With several processes, each updates its own pieces, and then
    /// all have all parameters.
    func update(
        _ gradients: [Tensor?], learningRate: Double, gradientScale: Double, on backend: any Backend
    ) throws {
        step += 1
        for (place, piece) in shards.pieces.enumerated() {
            guard let moment = moments[place], let gradient = gradients[piece.parameter] else { continue }
            let parameter = parameters[piece.parameter]
            let decays = settings.decaysEverything || !parameter.role.isNormOrBias
            try backend.adamWStep(
                AdamWStep(
                    learningRate: Float(learningRate), beta1: Float(settings.beta1),
                    beta2: Float(settings.beta2),
                    epsilon: Float(settings.epsilon), weightDecay: decays ? Float(settings.weightDecay) : 0,
                    step: step, gradientScale: Float(gradientScale)),
                parameter: shards.part(place, of: parameter.tensor),
                gradient: shards.part(place, of: gradient),
                moment1: moment.first, moment2: moment.second)
        }
        try shareParameters(gradients.map { $0 != nil })
    }

    /// Pieces that are sent at a time, so that the memory for them is bounded.
    private static let piecesAtOnce = 256

    /// Sends the process's own pieces of parameters to all others and takes over theirs.
    ///
    /// - `changed`: which parameters were updated.
    private func shareParameters(_ changed: [Bool]) throws {
        guard communicator.isShared else { return }
        let begun = ContinuousClock.now
        var bytes = 0
        defer { parameterCost = (bytes, (ContinuousClock.now - begun).seconds) }
        let others = (0..<communicator.count).filter { $0 != communicator.rank }
        let all = shards.pieces.indices.filter { changed[shards.pieces[$0].parameter] }
        for start in stride(from: 0, to: all.count, by: Self.piecesAtOnce) {
            var transfers: [Transfer] = []
            var received: [(piece: Int, buffer: TransferBuffer)] = []
            for piece in all[start..<min(all.count, start + Self.piecesAtOnce)] {
                let tensor = shards.part(piece, of: parameters[shards.pieces[piece].parameter].tensor)
                if shards.isOwn(piece) {
                    let buffer = tensor.withUnsafeBytes { TransferBuffer($0) }
                    for other in others {
                        bytes += tensor.byteCount
                        transfers.append(try communicator.send(buffer, to: other, tag: .parameters))
                    }
                } else {
                    let buffer = TransferBuffer(byteCount: tensor.byteCount)
                    received.append((piece, buffer))
                    transfers.append(
                        try communicator.receive(
                            into: buffer, from: shards.owner(of: piece), tag: .parameters))
                }
            }
            try communicator.wait(for: transfers)
            for (piece, buffer) in received {
                try shards.part(piece, of: parameters[shards.pieces[piece].parameter].tensor)
                    .write(Array(buffer.floats))
            }
        }
    }

    // MARK: State

    private static let secondMoment = "exp_avg_sq."

    /// The moments under the names that a checkpoint uses. With several processes, all must ask together, and only
    /// the first one gets them; the others get nothing.
    ///
    /// - Throws: `ProcessError`.
    public func state() throws -> [(name: String, tensor: Tensor)] {
        var whole = whole
        if communicator.isShared {
            if communicator.isFirst {
                whole = parameters.map {
                    (Tensor(zeros: $0.tensor.shape), Tensor(zeros: $0.tensor.shape))
                }
            }
            try collect(into: whole)
        }
        return zip(parameters, whole).flatMap { parameter, moment in
            [
                ("exp_avg.\(parameter.name)", moment.first),
                (Self.secondMoment + parameter.name, moment.second),
            ]
        }
    }

    /// Sends the moments of the process's own pieces to the first process, which puts them together.
    private func collect(into whole: [Moments]) throws {
        for (place, piece) in shards.pieces.enumerated() {
            if let moment = moments[place] {
                for (part, target) in [(moment.first, 0), (moment.second, 1)] {
                    if communicator.isFirst {
                        let tensor =
                            target == 0 ? whole[piece.parameter].first : whole[piece.parameter].second
                        try shards.part(place, of: tensor).write(part.floats())
                    } else {
                        let buffer = part.withUnsafeBytes { TransferBuffer($0) }
                        let transfer = try communicator.send(buffer, to: 0, tag: .parameters)
                        try communicator.wait(for: [transfer], patience: Patience.long)
                    }
                }
            } else if communicator.isFirst {
                for tensor in [whole[piece.parameter].first, whole[piece.parameter].second] {
                    let buffer = TransferBuffer(byteCount: 4 * piece.range.count)
                    let transfer = try communicator.receive(
                        into: buffer, from: shards.owner(of: place), tag: .parameters)
                    try communicator.wait(for: [transfer], patience: Patience.long)
                    try shards.part(place, of: tensor).write(Array(buffer.floats))
                }
            }
        }
    }

    /// Restores what `state` returned.
    ///
    /// - Throws: `ModelError` if a tensor is missing or too many, has another shape, or holds numbers that no
    ///   update leaves.
    public func restore(_ file: SafetensorsFile, step: Int) throws {
        var known: Set<String> = []
        for (index, parameter) in parameters.enumerated() {
            for name in ["exp_avg.\(parameter.name)", Self.secondMoment + parameter.name] {
                known.insert(name)
                let isSecond = name.hasPrefix(Self.secondMoment)
                let saved = try file.tensor(name)
                guard saved.shape == parameter.tensor.shape, saved.dtype == .float32 else {
                    throw ModelError.wrongShape(
                        file: file.path, tensor: name, expected: parameter.tensor.shape, found: saved.shape)
                }
                if let bad = saved.floats().first(where: { !$0.isFinite || ($0 < 0 && isSecond) }) {
                    throw ModelError.malformedSafetensors(
                        file: file.path, tensor: name, reason: "\(bad) is no value that AdamW leaves")
                }
                for piece in shards.piecesOfParameter[index] {
                    guard let moment = moments[piece] else { continue }
                    try (isSecond ? moment.second : moment.first)
                        .write(shards.part(piece, of: saved).floats())
                }
            }
        }
        if let surplus = file.entries.first(where: { !known.contains($0.name) }) {
            throw ModelError.unexpectedTensor(file: file.path, tensor: surplus.name)
        }
        self.step = step
    }
}
