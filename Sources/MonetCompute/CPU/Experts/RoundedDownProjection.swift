import CMonetKernels
import Foundation

// Packed experts where the kernels multiply bfloat16 values natively: weights are read as they are
// stored, activations and coefficients are rounded once.

extension CPUBackend {
    /// Whether operands may be rounded to bfloat16 and the kernels multiply such values natively.
    var roundsInKernels: Bool { precision == .bfloat16 && kernels.bfloat16_pays != 0 }

    /// The same for experts with many tokens, where reading weights does not dominate the cost.
    var roundsManyInKernels: Bool { roundsInKernels && instructionSet.bfloat16OutrunsFloat32 }

    /// The products of `rows` rows of activations with rows of weights of one type in this precision; nil for
    /// integers.
    func rowKernels(_ dtype: DType, rows: Int) -> monet_row_kernels? {
        switch dtype {
        case .bfloat16 where roundsInKernels: kernels.rounded_bf16
        case .bfloat16: kernels.even_odd_bf16
        case .int8Rows where kernels.integers_pay != 0 && (isBatchInvariant || rows >= policy.integerRows):
            kernels.int8_on_integers
        default: instructionSet.rows(dtype)
        }
    }

    /// Some rows as bfloat16; the rows themselves if they already are.
    func roundedRows(_ weight: Tensor, _ rows: Range<Int>) -> Tensor {
        if weight.dtype == .bfloat16 { return weight.slice(rows) }
        let (wide, rounded) = (
            Tensor(uninitialized: [weight.columnCount]),
            Tensor(uninitialized: [rows.count, weight.columnCount], dtype: .bfloat16)
        )
        let out = rounded.address.assumingMemoryBound(to: UInt16.self)
        for row in rows {
            weight.readRow(row, columns: 0..<wide.count, into: wide.pointer, by: instructionSet)
            kernels.f32_to_bf16(out + (row - rows.lowerBound) * wide.count, wide.pointer, wide.count)
        }
        return rounded
    }
}

/// The coefficients of one side's entries in bfloat16, padded with a zero to an even number of rows, and
/// their products with panels of the side's weights.
struct RoundedDownProjection {
    private let weight: Tensor
    private let bias: Tensor
    private let coefficients: Tensor
    private let instructionSet: Kernels
    private var kernels: monet_kernels { instructionSet.functions }
    /// Rows per expert, of which the last is the output bias.
    private let rows: Int
    private var pairs: Int { (rows + 1) / 2 }

    /// `coefficients` is `[entries, rows]`.
    init(
        rows weight: Tensor, bias: Tensor, coefficients: Tensor, _ instructionSet: Kernels, pool: WorkerPool
    ) {
        (self.weight, self.bias, self.instructionSet) = (weight, bias, instructionSet)
        let kernels = instructionSet.functions
        let rows = coefficients.columnCount
        let stride = (rows + 1) / 2 * 2
        self.rows = rows
        let rounded = Tensor(uninitialized: [coefficients.rowCount, stride], dtype: .bfloat16)
        let out = rounded.address.assumingMemoryBound(to: UInt16.self)
        pool.forEachRange(of: coefficients.rowCount, minimum: 256) { range, _ in
            for entry in range {
                out[entry * stride + stride - 1] = 0
                kernels.f32_to_bf16(out + entry * stride, coefficients.pointer + entry * rows, rows)
            }
        }
        self.coefficients = rounded
    }

    /// Scratch memory for an expert's rows of `columns` columns in pairs, and for two rows.
    func scratch(columns: Int) -> (pairs: Tensor, lines: Tensor, wide: Tensor) {
        (
            Tensor(uninitialized: [pairs, 2 * columns + 32], dtype: .bfloat16),
            Tensor(uninitialized: [2, columns], dtype: .bfloat16), Tensor(uninitialized: [columns])
        )
    }

    /// Adds an expert's entries to the rows of `sums`, which are `columns` of the output.
    func add(
        _ expert: Int, _ entries: Range<Int>, columns: Range<Int>, to sums: Tensor,
        rows tokens: UnsafePointer<Int32>, scratch: (pairs: Tensor, lines: Tensor, wide: Tensor)
    ) {
        let stride = scratch.pairs.columnCount
        let target = scratch.pairs.address.assumingMemoryBound(to: UInt16.self)
        for pair in 0..<pairs {
            let even = line(2 * pair, of: expert, columns, scratch, place: 0)
            let odd =
                2 * pair + 1 < rows ? line(2 * pair + 1, of: expert, columns, scratch, place: 1) : nil
            kernels.interleave(target + pair * stride, even, odd, columns.count)
        }
        let own = coefficients.address.assumingMemoryBound(to: UInt16.self)
        kernels.scatter_add_pairs(
            sums.pointer, sums.columnCount, tokens, entries.count,
            own + entries.lowerBound * coefficients.columnCount, coefficients.columnCount, target, stride,
            pairs, columns.count)
    }

    /// Columns of one of an expert's rows in bfloat16, in place if they are stored in this type.
    private func line(
        _ row: Int, of expert: Int, _ columns: Range<Int>,
        _ scratch: (pairs: Tensor, lines: Tensor, wide: Tensor), place: Int
    ) -> UnsafePointer<UInt16> {
        let (source, index) = row == rows - 1 ? (bias, expert) : (weight, expert * (rows - 1) + row)
        if source.dtype == .bfloat16 {
            let start = source.address.assumingMemoryBound(to: UInt16.self)
            return UnsafePointer(start + index * source.columnCount + columns.lowerBound)
        }
        let out =
            scratch.lines.address.assumingMemoryBound(to: UInt16.self) + place * scratch.lines.columnCount
        source.readRow(index, columns: columns, into: scratch.wide.pointer, by: instructionSet)
        kernels.f32_to_bf16(out, scratch.wide.pointer, columns.count)
        return UnsafePointer(out)
    }
}
