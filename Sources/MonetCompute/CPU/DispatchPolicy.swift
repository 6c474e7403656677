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
    /// AVX-512 BF16, for which these kernels have tiles of eight rows).
    public var roundedRowsInRegisters = 8
    /// Rows of activations by the same bfloat16 weights from which it pays to keep even and odd columns apart.
    /// Dense products of a step of eight streams: 75.5 → 68.2 ms; experts with one or two tokens each, which this
    /// excludes: 18.7 → 20.9 ms.
    public var evenOddRows = 4
    /// Rows of activations from which rows of int8 are multiplied as integers. Four rows: 64 → 83 to 110 GMAC/s; one
    /// row gains nothing, because memory is its limit.
    public var integerRows = 3
    /// Lines of either operand from which packing both for integer products pays: for a prompt of 512 tokens
    /// of the 1.4B model, 107 to 120 compared with 85 to 95 tokens/s; equal at 64 rows.
    public var integerLines = 64
    /// Tokens up to which experts in the layout of columns run dense. A vertical layer of 256 halves a side, width
    /// 512 and 8 units a half, dense over gathered time with gradients at a density of 2%: 0.84 with 8 tokens,
    /// 1.27 with 16, 1.74 with 64, 5.8 with 512, 13 with 2048; at 71%:
    /// 0.74 with 64, 1.29 with 512, 1.32 with 2048.
    public var denseTokens = 8
    /// Tokens of one expert up to which its rows are read as they are stored, in a batch of more than
    /// `rowsInRegisters`; for more tokens, it pays to widen the rows once. bfloat16 is the cheapest to widen
    /// and always read as stored (for a prompt of 512 tokens: 1.03 times as fast).
    public var entriesAsStored = 8
    /// Tokens up to which routers are screened by their rows of int8. A router of the 1.4B model in bfloat16, time
    /// of the whole product over that of screening: 1.69 with one token, 1.29 with two, 1.11 with three, 0.57
    /// with four.
    public var screenedTokens = 2

    /// The measured thresholds.
    public init() {}
}
