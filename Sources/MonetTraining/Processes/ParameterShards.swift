import MonetCompute
import MonetModel

/// The parameters of a model in pieces of at most 65,536 numbers, each of which belongs to one process: it sums the
/// piece's gradient, keeps its moments and updates it (ZeRO stage 1, Rajbhandari et al. 2020).
///
/// Pieces are dealt out in turn, so that every process has work whichever parameters are ready. They do not depend on
/// the number of processes, nor does anything that is computed for each of them.
struct ParameterShards: Sendable {
    struct Piece: Sendable {
        /// Index among the parameters.
        let parameter: Int
        let range: Range<Int>
    }

    /// Numbers in a piece: the blocks of the backend's sum of squares.
    static let pieceSize = 1 << 16

    let parameters: [Parameter]
    let pieces: [Piece]
    /// The pieces of each parameter, as indices of `pieces`.
    let piecesOfParameter: [Range<Int>]
    private let rank: Int
    private let processes: Int

    init(_ parameters: [Parameter], rank: Int, processes: Int) {
        self.parameters = parameters
        self.rank = rank
        self.processes = processes
        var pieces: [Piece] = []
        var ofParameter: [Range<Int>] = []
        for (index, parameter) in parameters.enumerated() {
            let first = pieces.count
            let count = parameter.tensor.count
            for start in stride(from: 0, to: count, by: Self.pieceSize) {
                pieces.append(
                    Piece(parameter: index, range: start..<min(count, start + Self.pieceSize)))
            }
            ofParameter.append(first..<pieces.count)
        }
        self.pieces = pieces
        piecesOfParameter = ofParameter
    }

    func owner(of piece: Int) -> Int { piece % processes }
    func isOwn(_ piece: Int) -> Bool { owner(of: piece) == rank }

    /// The part of a tensor of a parameter's shape that a piece is.
    func part(_ piece: Int, of tensor: Tensor) -> Tensor {
        tensor.reshaped([tensor.count]).slice(pieces[piece].range)
    }
}
