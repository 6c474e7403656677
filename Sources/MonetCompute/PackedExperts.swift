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
        let (blockRows, blockColumns) = (64, 64)
        pool.parallel(chunks: (columns + blockColumns - 1) / blockColumns) { chunk in
            let range = (chunk * blockColumns)..<min(columns, (chunk + 1) * blockColumns)
            for (place, matrix) in matrices.enumerated() {
                for start in stride(from: 0, to: width, by: blockRows) {
                    let end = min(width, start + blockRows)
                    switch dtype.byteCount {
                    case 2:
                        transpose(
                            UInt16.self, matrix, into: result, columns: range, rows: start..<end,
                            units: units,
                            stride: rows, place: place * units)
                    default:
                        transpose(
                            UInt32.self, matrix, into: result, columns: range, rows: start..<end,
                            units: units,
                            stride: rows, place: place * units)
                    }
                }
            }
        }
        return result
    }

    private static func transpose<Element>(
        _ type: Element.Type, _ source: Tensor, into target: Tensor, columns: Range<Int>, rows: Range<Int>,
        units: Int, stride: Int, place: Int
    ) {
        let from = source.address.assumingMemoryBound(to: type)
        let to = target.address.assumingMemoryBound(to: type)
        let (sourceStride, width) = (source.columnCount, target.columnCount)
        for column in columns {
            let out = to + (column / units * stride + place + column % units) * width
            let line = from + column
            for row in rows { out[row] = line[row * sourceStride] }
        }
    }
}
