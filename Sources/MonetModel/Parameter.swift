import MonetCompute

/// A named tensor of a model.
public struct Parameter: Sendable {
    /// The name in the checkpoint.
    public let name: String
    /// The values; float32 and writable in training, possibly narrower and mapped in inference.
    public let tensor: Tensor
    /// The tensor's role.
    public let role: TensorShape.Role

    /// Whether it belongs to a router.
    public var isRouters: Bool { name.contains(".router.") }

    /// Names a tensor.
    public init(name: String, tensor: Tensor, role: TensorShape.Role) {
        self.name = name
        self.tensor = tensor
        self.role = role
    }
}

/// The tensors of a model by name.
public struct ParameterSet: Sendable {
    /// All tensors, in the order of the layers.
    public let all: [Parameter]
    private let indexOfName: [String: Int]

    /// Collects tensors.
    public init(_ all: [Parameter]) {
        self.all = all
        indexOfName = Dictionary(
            all.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// The tensor called `name`.
    ///
    /// - Throws: `ModelError.missingTensor`.
    public func callAsFunction(_ name: String) throws -> Parameter {
        guard let index = indexOfName[name] else {
            throw ModelError.missingTensor(file: "model", tensor: name)
        }
        return all[index]
    }

    /// The same tensors on a device.
    func moved(to backend: any Backend) throws -> ParameterSet {
        ParameterSet(
            try all.map {
                Parameter(name: $0.name, tensor: try backend.tensor($0.tensor), role: $0.role)
            })
    }

    /// The tensors that training changes by gradient.
    public var trainable: [Parameter] { all.filter(\.role.isParameter) }
}
