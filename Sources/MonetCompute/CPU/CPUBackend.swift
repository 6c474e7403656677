import CMonetKernels
import Foundation

/// The processor: dense products through a library, everything else in the package's kernels.
///
///     let backend = CPUBackend()
///     let y = try backend.linear(x, weight: w, bias: nil)
public struct CPUBackend: Backend {
    /// The threads that share the work.
    public let pool: WorkerPool
    /// The instruction set in use, for conversions too.
    public let instructionSet: Kernels
    var kernels: monet_kernels { instructionSet.functions }
    /// How operands of dense products are rounded.
    public let precision: ComputePrecision
    /// How expert layers run.
    public let expertExecution: ExpertExecution
    /// Whether a row of a result depends on its own row of the input alone, bit for bit: every sum has one
    /// order, whatever the number of rows, sequences, chunks of a prompt and threads. Without it, few and many
    /// rows run through different algorithms, which round differently.
    public let isBatchInvariant: Bool
    /// The sizes at which the backend switches between algorithms.
    public let policy: DispatchPolicy
    let matrixProduct: MatrixProduct
    /// Weights that batch-invariant products have packed; nil for a backend that packs none of them.
    let packedWeights: PackedWeights?

    /// A backend on `pool` with the kernels of one instruction set.
    public init(
        pool: WorkerPool = .shared, instructionSet: Kernels = .best, precision: ComputePrecision = .float32,
        expertExecution: ExpertExecution = .automatic, isBatchInvariant: Bool = false,
        policy: DispatchPolicy = DispatchPolicy()
    ) {
        self.isBatchInvariant = isBatchInvariant
        self.expertExecution = expertExecution
        self.pool = pool
        self.instructionSet = instructionSet
        self.precision = precision
        self.policy = policy
        matrixProduct = MatrixProduct(
            pool: pool, instructionSet: instructionSet, precision: precision, policy: policy)
        packedWeights = isBatchInvariant && policy.packsInvariantProducts ? PackedWeights() : nil
    }

    /// The same backend for passes of many rows: its batch-invariant products in bfloat16 pack both operands for
    /// integer products, if this processor has them. The packed weights are kept as long as the backend, as far as
    /// memory has room.
    public var forManyRows: any Backend {
        guard isBatchInvariant else { return self }
        var policy = policy
        policy.packsInvariantProducts = true
        return CPUBackend(
            pool: pool, instructionSet: instructionSet, precision: precision,
            expertExecution: expertExecution,
            isBatchInvariant: isBatchInvariant, policy: policy)
    }

    /// Whether this processor multiplies bfloat16 matrices natively.
    public static var hasNativeBFloat16: Bool { MatrixProduct.hasNativeBFloat16 }

    /// Whether products in bfloat16 are faster than in float32: natively, or as scaled integer products.
    public var hasFastBFloat16: Bool {
        MatrixProduct.hasNativeBFloat16 || instructionSet.functions.integers_pay != 0
    }

    public var name: String { name(threads: "\(pool.threadCount) threads, ") }

    /// The name without the number of threads, on which batch-invariant results do not depend.
    public var arithmeticName: String {
        name(threads: isBatchInvariant ? "" : "\(pool.threadCount) threads, ")
    }

    private func name(threads: String) -> String {
        "cpu-\(instructionSet.name), \(threads)\(precision.rawValue)"
            + (isBatchInvariant ? ", batch-invariant" : "") + (packsInvariantProducts ? ", packed" : "")
    }

    /// In batch-invariant attention, sums over keys have one order, wherever the keys are.
    public var sharesBeginnings: Bool { isBatchInvariant }

    // MARK: Checks

    func requireShape(_ tensor: Tensor, _ shape: [Int], _ operation: String) throws {
        guard tensor.shape == shape else {
            throw ComputeError.shapeMismatch(
                operation: operation, expected: "\(shape)", found: "\(tensor.shape)")
        }
        try requireHost(tensor, operation)
    }

    func requireHost(_ tensor: Tensor, _ operation: String) throws {
        guard tensor.isOnHost else {
            throw ComputeError.foreignStorage(operation: operation, device: name)
        }
    }

    /// A float32 tensor in host memory, as activations and gradients are.
    func requireFloat32(_ tensor: Tensor, _ operation: String) throws {
        guard tensor.dtype == .float32 else {
            throw ComputeError.unsupportedDType(operation: operation, dtype: tensor.dtype)
        }
        try requireHost(tensor, operation)
    }

    /// Float32 tensors in host memory, all of one shape.
    func requireFloat32(_ tensors: [Tensor], _ shape: [Int], _ operation: String) throws {
        for tensor in tensors {
            try requireShape(tensor, shape, operation)
            try requireFloat32(tensor, operation)
        }
    }

    /// Real numbers of any type in host memory, as weights are.
    func requireReal(_ tensor: Tensor, _ operation: String) throws {
        guard tensor.dtype.isReal else {
            throw ComputeError.unsupportedDType(operation: operation, dtype: tensor.dtype)
        }
        try requireHost(tensor, operation)
    }

    /// The vector as float32, converted if it is stored narrower.
    func widened(_ vector: Tensor) -> Tensor {
        vector.converted(to: .float32, by: instructionSet, pool: pool)
    }

    // MARK: Memory

    public func tensor(_ source: Tensor) throws -> Tensor { source.onHost }

    public func empty(_ shape: [Int], dtype: DType) throws -> Tensor {
        Tensor(uninitialized: shape, dtype: dtype)
    }

    public func zeros(_ shape: [Int], dtype: DType) throws -> Tensor { Tensor(zeros: shape, dtype: dtype) }

    public func copy(_ source: Tensor, into target: Tensor) throws {
        try requireHost(source, "copy")
        try requireHost(target, "copy")
        guard source.dtype == target.dtype, source.byteCount == target.byteCount else {
            throw ComputeError.shapeMismatch(
                operation: "copy", expected: "\(target.dtype) \(target.shape)",
                found: "\(source.dtype) \(source.shape)")
        }
        guard target.storage.isWritable else { throw ComputeError.readOnly(operation: "copy") }
        memmove(target.address, source.address, source.byteCount)
    }
}

/// How expert layers run; the results are equal up to rounding.
public enum ExpertExecution: String, Sendable, CaseIterable {
    /// Sparse where so few experts are selected that it is faster.
    case automatic
    /// Every expert for every token, as the paper's formulas are written.
    case dense
    /// Only selected experts.
    case sparse
}
