/// The sizes at which the processor backend switches between algorithms, which differ only by rounding.
///
/// Every threshold is given with the measurement that set it (two cores of an AMD EPYC with AVX2 unless
/// stated otherwise; `Benchmarks/notes.md` has the details).
public struct DispatchPolicy: Sendable, Equatable {
    /// Up to this many rows of activations, weights are widened in registers for all of them. For more rows,
    /// it pays to widen a block of weights once, or to quantize it, for a dense product. A step of 12
    /// streams: 34 → 67 tokens/s in bfloat16, 33 → 91 in int8; equal to integer products at 64 rows.
    public var rowsInRegisters = 64
    /// The same where bfloat16 is multiplied natively and a dense product widens nothing (a Xeon with
    /// AVX-512 BF16): the tiles of these kernels have eight rows, beyond which every further tile reads the weights
    /// again. A limit of the kernels; others were not timed.
    public var roundedRowsInRegisters = 8
    /// Rows of activations from which rows of int8 are multiplied as integers. Four rows: 64 → 83 to 110 GMAC/s; one
    /// row gains nothing, because memory is its limit.
    public var integerRows = 3
    /// Lines of either operand from which packing both for integer products pays: for a prompt of 512 tokens
    /// of the 1.4B model, 107 to 120 compared with 85 to 95 tokens/s; equal at 64 rows.
    public var integerLines = 64
    /// Whether batch-invariant products in bfloat16 pack both operands for integer products, whatever the number of
    /// rows. For scoring, where hundreds of rows come at a time; a single row would cost many times as much.
    public var packsInvariantProducts = false
    /// Tokens up to which experts in the layout of columns run dense. A vertical layer of 256 halves a side, width
    /// 512 and 8 units a half, dense over gathered time: 0.22 with one token, 0.43 with 8, 0.57 with 16, 0.83 with
    /// 32 at a density of 2%; 0.21 to 0.66 at 40%. With the gradient, which always gathers: 1.06 to 1.14 up to 8
    /// tokens, 1.2 to 1.27 with 32. So a few tokens, which are rarely trained on, run dense.
    public var denseTokens = 8
    /// Tokens of one expert up to which its rows are read as they are stored, in a batch of more than
    /// `rowsInRegisters`; for more tokens, it pays to widen the rows once. bfloat16 is the cheapest to widen
    /// and always read as stored (for a prompt of 512 tokens: 1.03 times as fast).
    public var entriesAsStored = 8
    /// Tokens whose down-projections are summed at a time, an expert's rows widened once for all of them. With more, the
    /// sums of 64 columns no longer fit into the second-level cache.
    public var tokensPerDownProjection = 1024
    /// Tokens up to which routers are screened by their rows of int8. A router of the 1.4B model in bfloat16, time
    /// of the whole product over that of screening: 1.69 with one token, 1.29 with two, 1.11 with three, 0.57
    /// with four.
    public var screenedTokens = 2

    /// Multiplications below which a dense product stays on one thread. Time of one thread over that of two for
    /// 128 rows: 0.84 with 2¹⁴, 0.84 to 0.94 with 2¹⁵, 0.98 with 2¹⁶, 1.13 with 2¹⁷, 1.3 with 2¹⁹.
    public var productPerThread = 1 << 16
    /// Elements of weights that each thread must have where threads read rows of weights of their own. One row of
    /// activations, time of one thread over that of two that share these elements: 0.9 with 2¹⁴, 1.07 to 1.15
    /// with 2¹⁵, 1.34 to 1.37 with 2¹⁶, 1.6 with 2¹⁷, for float32 and bfloat16 alike.
    public var weightsPerThread = 1 << 15

    /// The measured thresholds.
    public init() {}
}
