import CMonetKernels
import Foundation

/// The SIMD kernels of one instruction set.
///
/// `@unchecked Sendable`: the table is a constant of the program.
public struct Kernels: @unchecked Sendable {
    package let table: UnsafePointer<monet_kernels>
    /// Whether products of bfloat16 values, where `table` has an instruction for them, are faster even if
    /// arithmetic dominates the cost. If not, they only save bytes, and experts with many tokens use float32.
    package let bfloat16OutrunsFloat32: Bool
    /// How far ahead a thread that reads rows in order should prefetch, in bytes.
    package let bytesAhead: Int

    /// The best kernels that this processor runs, unless `MONET_ISA` names others.
    ///
    /// An unusable `MONET_ISA` is reported by `validateEnvironment()`; here it counts as unset.
    public static let best: Kernels = {
        if let name = ProcessInfo.processInfo.environment["MONET_ISA"], let forced = Kernels(named: name) {
            return forced
        }
        return Kernels(table: monet_kernels_best())
    }()

    package init(
        table: UnsafePointer<monet_kernels>,
        bfloat16OutrunsFloat32: Bool = monet_bfloat16_outruns_float32() != 0,
        bytesAhead: Int = monet_bytes_ahead()
    ) {
        self.table = table
        self.bfloat16OutrunsFloat32 = bfloat16OutrunsFloat32
        self.bytesAhead = bytesAhead
    }

    /// The kernels of the instruction set `name`, if this processor runs them.
    public init?(named name: String) {
        guard let table = monet_kernels_named(name) else { return nil }
        self.init(table: table)
    }

    /// The instruction set's name: `scalar`, `avx2`, `avx512`, `avx512vnni`,
    /// `avx512bf16` or `neon`.
    public var name: String { String(cString: table.pointee.name) }

    /// Every instruction set that this processor runs.
    public static var available: [String] {
        ["avx512bf16", "avx512vnni", "avx512", "avx2", "neon", "scalar"].filter { Kernels(named: $0) != nil }
    }

    /// Reports a `MONET_ISA` that cannot be used.
    ///
    /// - Throws: `ComputeError.unknownInstructionSet`.
    public static func validateEnvironment() throws {
        if let name = ProcessInfo.processInfo.environment["MONET_ISA"], Kernels(named: name) == nil {
            throw ComputeError.unknownInstructionSet(name: name, available: available)
        }
    }

    /// The products with rows of weights of one type; nil for integers.
    func rows(_ dtype: DType) -> monet_row_kernels? {
        let formats = table.pointee.rows
        return switch dtype {
        case .float32: formats.0
        case .bfloat16: formats.1
        case .float16: formats.2
        case .int8Rows: formats.3
        case .int4Rows: formats.4
        case .int32, .int64, .uint8: nil
        }
    }

    /// What to prefetch while `count` rows of activations are multiplied with consecutive rows of weights
    /// from `start` on; nil leaves it to the kernel. Several rows of activations share their rows of weights,
    /// and the kernel prefetches the next ones.
    func ahead(of start: UnsafeMutableRawPointer, rows count: Int) -> UnsafeRawPointer? {
        count == 1 && bytesAhead > 0 ? UnsafeRawPointer(start + bytesAhead) : nil
    }

    /// The functions themselves.
    var functions: monet_kernels { table.pointee }
}
