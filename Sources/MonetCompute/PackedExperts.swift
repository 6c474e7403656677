import CMonetKernels

/// The weights of an expert layer in the order that inference reads them: expert after expert.
///
/// The up-projections are the checkpoint's. The down-projections, whose columns belong to experts
/// there, are turned so that all an expert needs lies together, in any storage type.
public struct PackedExperts: Sendable {
    /// σ(U x + b) of one side.
    public struct UpProjection: Sendable {
        /// `[E · units, d]`.
        public let weight: Tensor
        /// `[E · units]`.
        public let bias: Tensor

        /// Joins weight and bias.
        public init(weight: Tensor, bias: Tensor) {
            self.weight = weight
            self.bias = bias
        }
    }

    /// What one side's experts add to the output.
    public struct DownProjection: Sendable {
        /// `[E · rows, width]`: an expert's rows are those of its hidden units (vertical: of the left
        /// ones, then of the right ones).
        public let weight: Tensor
        /// `[E, width]`.
        public let bias: Tensor

        /// Joins weight and bias.
        public init(weight: Tensor, bias: Tensor) {
            self.weight = weight
            self.bias = bias
        }
    }

    /// How the halves of an expert are joined.
    public enum Decomposition: Sendable {
        /// Equations 6 to 12: left experts go up, right experts come down to the whole output.
        case horizontal(up: UpProjection, down: DownProjection)
        /// Equations 13 to 15: both go up; left ones come down to the upper half of the output, right
        /// ones to the lower half.
        case vertical(left: UpProjection, right: UpProjection, upper: DownProjection, lower: DownProjection)
    }

    /// The weights.
    public let decomposition: Decomposition

    /// Wraps the weights of one layer.
    public init(_ decomposition: Decomposition) {
        self.decomposition = decomposition
    }

    /// Turns matrices `[width, E · units]` into `[E · rows, width]`, each expert's rows of all matrices
    /// together.
    public static func rows(of matrices: [Tensor], experts: Int, pool: WorkerPool = .shared) -> Tensor {
        let (width, columns, dtype) = (matrices[0].shape[0], matrices[0].shape[1], matrices[0].dtype)
        let units = columns / experts
        let rows = matrices.count * units
        let result = Tensor(uninitialized: [experts * rows, width], dtype: dtype)
        // Neighbouring columns, of which a row's make up several cache lines.
        let block = 256
        pool.parallel(chunks: (columns + block - 1) / block) { chunk in
            let range = (chunk * block)..<min(columns, (chunk + 1) * block)
            for (place, matrix) in matrices.enumerated() {
                let targets = range.map { $0 / units * rows + place * units + $0 % units }
                if dtype.byteCount == 2 {
                    lines(monet_columns_16, of: matrix, from: range.lowerBound, to: targets, of: result)
                } else {
                    lines(monet_columns_32, of: matrix, from: range.lowerBound, to: targets, of: result)
                }
            }
        }
        return result
    }

    /// Columns of a matrix from `first` on, each to a row of `target`.
    private static func lines<Element>(
        _ copy: (
            UnsafePointer<UnsafeMutablePointer<Element>>, UnsafePointer<Element>, Int, Int, Int
        ) -> Void,
        of matrix: Tensor, from first: Int, to rows: [Int], of target: Tensor
    ) {
        let from = matrix.address.assumingMemoryBound(to: Element.self)
        let to = target.address.assumingMemoryBound(to: Element.self)
        let lines = rows.map { to + $0 * target.columnCount }
        copy(lines, from + first, matrix.columnCount, matrix.shape[0], rows.count)
    }
}
