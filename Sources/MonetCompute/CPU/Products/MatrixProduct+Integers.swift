import CMonetKernels
import Foundation

// bfloat16 products on processors without instructions for them: both operands are quantized to integers
// in blocks along the sum, which loses less precision than bfloat16 (`CMonetKernels/integers.inc`).

/// An operand in panels of quantized lines.
struct PackedIntegers {
    private let values: Tensor
    private let scales: Tensor
    fileprivate let blocks: Int
    fileprivate let panel: Int

    fileprivate init(lines: Int, length: Int, panel: Int, block: Int) {
        self.panel = panel
        blocks = (length + block - 1) / block
        let panels = (lines + panel - 1) / panel
        // Two 16-bit integers take the space of a float32.
        values = Tensor(uninitialized: [panels * panel * blocks * block / 2])
        scales = Tensor(uninitialized: [panels * panel * blocks])
    }

    fileprivate func offset(line: Int, block: Int) -> Int { (line / panel * blocks + block) * panel }

    /// Integers of the panel of `line`, a multiple of the panel's size, from `block` on.
    fileprivate func integers(line: Int, block: Int, blockSize: Int) -> UnsafeMutablePointer<Int16> {
        values.address.assumingMemoryBound(to: Int16.self) + offset(line: line, block: block) * blockSize
    }

    fileprivate func scales(line: Int, block: Int) -> UnsafeMutablePointer<Float> {
        scales.pointer + offset(line: line, block: block)
    }
}

extension MatrixProduct {
    /// Whether integer products are faster than others in bfloat16 on this processor.
    var hasIntegers: Bool { !Self.hasNativeBFloat16 && instructionSet.functions.integers_pay != 0 }

    /// Whether a product of this size is faster on integers, for which both operands must be packed.
    func prefersIntegers(m: Int, n: Int) -> Bool {
        hasIntegers && (policy.packsInvariantProducts || min(m, n) >= policy.integerLines)
    }

    /// Integers of the right operand that are packed at a time.
    private static var slabElements: Int { 1 << 23 }
    /// Blocks along the sum, and panels, whose integers of the left operand stay in the second-level cache.
    private static var blocksAtOnce: Int { 8 }
    private static var panelsAtOnce: Int { 20 }
    /// Blocks of narrow lines that are widened at a time.
    private static var blocksWidened: Int { 8 }

    /// `c[m,n] (+)= a[m,k] · b[k,n]` on integers.
    func multiplyIntegers(
        m: Int, n: Int, k: Int, _ a: MatrixOperand, _ b: MatrixOperand,
        into c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        let kernels = instructionSet.functions
        let (rowPanel, columnPanel) = (kernels.integer_rows, kernels.integer_columns)
        let left = packed(
            a, linesAreStored: !a.isTransposed, lines: m, length: k, panel: rowPanel, kernels.pack_left)
        let slab = max(1, Self.slabElements / k / columnPanel) * columnPanel
        for start in stride(from: 0, to: n, by: slab) {
            let columns = min(slab, n - start)
            let right = packed(
                b.advanced(column: start), linesAreStored: b.isTransposed, lines: columns, length: k,
                panel: columnPanel, kernels.pack_right)
            multiply(
                left, right, m: m, columns: columns, into: c + start, cStride: cStride, accumulate: accumulate
            )
        }
    }

    /// The right operand `[k, n]`, whose columns are stored as rows, packed as a whole.
    func packedRight(_ b: MatrixOperand, n: Int, k: Int) -> PackedIntegers {
        packed(
            b, linesAreStored: true, lines: n, length: k,
            panel: instructionSet.functions.integer_columns, instructionSet.functions.pack_right)
    }

    /// `c[m,n] (+)= a[m,k] · b[k,n]` with `b` packed before.
    func multiplyIntegers(
        m: Int, n: Int, k: Int, _ a: MatrixOperand, _ right: PackedIntegers,
        into c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        let left = packed(
            a, linesAreStored: !a.isTransposed, lines: m, length: k,
            panel: instructionSet.functions.integer_rows, instructionSet.functions.pack_left)
        multiply(left, right, m: m, columns: n, into: c, cStride: cStride, accumulate: accumulate)
    }

    private func multiply(
        _ left: PackedIntegers, _ right: PackedIntegers, m: Int, columns: Int,
        into c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        let kernels = instructionSet.functions
        let block = kernels.integer_block
        let rowPanels = (m + left.panel - 1) / left.panel
        let rowChunks = (rowPanels + Self.panelsAtOnce - 1) / Self.panelsAtOnce
        let panels = (columns + right.panel - 1) / right.panel
        let columnChunks = min(panels, (8 * pool.shareCount + rowChunks - 1) / rowChunks)
        pool.parallel(chunks: rowChunks * columnChunks) { chunk in
            let row = rowPanels * (chunk / columnChunks) / rowChunks * left.panel
            let rows = min(m, rowPanels * (chunk / columnChunks + 1) / rowChunks * left.panel) - row
            let first = panels * (chunk % columnChunks) / columnChunks
            let last = panels * (chunk % columnChunks + 1) / columnChunks
            for start in stride(from: 0, to: left.blocks, by: Self.blocksAtOnce) {
                let blocks = min(Self.blocksAtOnce, left.blocks - start)
                for panel in first..<last {
                    let column = panel * right.panel
                    kernels.integer_product(
                        c + row * cStride + column, cStride, rows, min(right.panel, columns - column),
                        left.integers(line: row, block: start, blockSize: block),
                        left.scales(line: row, block: start), left.blocks,
                        right.integers(line: column, block: start, blockSize: block),
                        right.scales(line: column, block: start), blocks, accumulate || start > 0 ? 1 : 0)
                }
            }
        }
    }

    private typealias Pack = (
        UnsafeMutablePointer<Int16>, UnsafeMutablePointer<Float>, UnsafePointer<Float>, Int, Int, Int, Int
    ) -> Void

    /// Packs lines that are stored one after another, or element by element.
    private func packed(
        _ x: MatrixOperand, linesAreStored: Bool, lines: Int, length: Int, panel: Int, _ pack: Pack
    ) -> PackedIntegers {
        let block = instructionSet.functions.integer_block
        let result = PackedIntegers(lines: lines, length: length, panel: panel, block: block)
        var (source, copy) = (x, Tensor?.none)
        if x.dtype != .float32, !linesAreStored {
            // Lines of a narrow operand run across its stored rows, which are therefore widened as a whole.
            let wide = Tensor(uninitialized: [length, lines])
            pool.forEachRange(of: length, minimum: 16) { range, _ in
                widen(x, range, 0..<lines, into: wide.pointer + range.lowerBound * lines)
            }
            source = MatrixOperand(wide)
            copy = wide
        }
        defer { withExtendedLifetime(copy) {} }
        let panels = (lines + panel - 1) / panel
        let fewest = max(1, policy.weightsPerThread / (panel * length))
        pool.forEachRange(of: panels, minimum: fewest, perThread: 8) { range, _ in
            // Narrow lines are widened a few blocks at a time, so that these stay in the first-level cache.
            let width = min(length, block * Self.blocksWidened)
            let scratch = source.dtype == .float32 ? nil : Tensor(uninitialized: [panel, width])
            for index in range {
                let line = index * panel
                let count = min(panel, lines - line)
                guard let scratch else {
                    let values = source.address.assumingMemoryBound(to: Float.self)
                    pack(
                        result.integers(line: line, block: 0, blockSize: block),
                        result.scales(line: line, block: 0),
                        values + line * (linesAreStored ? source.stride : 1),
                        linesAreStored ? source.stride : 1, linesAreStored ? 1 : source.stride, count, length)
                    continue
                }
                for first in stride(from: 0, to: length, by: width) {
                    let columns = first..<min(length, first + width)
                    widen(source, line..<(line + count), columns, into: scratch.pointer)
                    pack(
                        result.integers(line: line, block: first / block, blockSize: block),
                        result.scales(line: line, block: first / block), scratch.pointer, columns.count, 1,
                        count, columns.count)
                }
            }
        }
        return result
    }

    /// Some columns of stored rows of a narrow operand in float32, one row after the other.
    private func widen(
        _ x: MatrixOperand, _ rows: Range<Int>, _ columns: Range<Int>, into out: UnsafeMutablePointer<Float>
    ) {
        for (place, row) in rows.enumerated() {
            x.widen(row, columns, into: out + place * columns.count)
        }
    }
}
