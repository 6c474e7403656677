/// Which of the processor's ways of computing the same numbers is taken, by size.
///
/// Every threshold stands here with the measurement that set it (two cores of an AMD EPYC with AVX2 unless
/// said otherwise; `Benchmarks/notes.md` has the circumstances). Results differ by rounding alone.
public struct DispatchPolicy: Sendable, Equatable {
    /// Up to this many rows of activations, weights are widened in registers for all of them; more are worth
    /// widening a block of weights once, or rounding it to integers, for a dense product. A step of 12
    /// streams: 34 → 67 tokens/s in bfloat16, 33 → 91 in int8; even with integer products at 64 rows.
    public var rowsInRegisters = 64
    /// The same where bfloat16 is multiplied as such and a dense product widens nothing (a Xeon with
    /// AVX-512 BF16: tiles of eight rows are what these kernels were made for).
    public var roundedRowsInRegisters = 8
    /// Lines of either operand from which packing both for integer products pays: a prompt of 512 of the
    /// 1.4B model 107 to 120 against 85 to 95 tokens/s; at 64 rows even.
    public var integerLines = 64
    /// Tokens up to which experts in the layout of columns run dense: an expert's columns are read in whole
    /// cache lines either way, and nothing is packed for a few tokens.
    public var denseTokens = 8
    /// Share of selected pairs of tokens and experts above which dense products of the layout of columns
    /// beat gathered ones: gathered kernels run at 52 to 65 GMAC/s where dense products run at 130 to 150.
    public var densestGathering = 0.45
    /// Tokens up to which output biases are added row by row rather than as a product.
    public var biasRows = 8
    /// Tokens of one expert up to which its rows are read as they are stored, in a batch of more than
    /// `rowsInRegisters`: more are worth widening them once. bfloat16 costs least to widen and is always read
    /// so (a prompt of 512: 1.03 times).
    public var entriesAsStored = 8
    /// Tokens up to which routers are screened by their rows of int8: each token reads a share of the exact
    /// rows again, and two read no less than the whole product does.
    public var screenedTokens = 2

    /// The measured thresholds.
    public init() {}
}
