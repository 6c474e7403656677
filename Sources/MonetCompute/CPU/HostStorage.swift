import Foundation
import MonetFoundation
import Synchronization

/// Host memory: owned and writable, or a read-only part of a mapped file.
///
/// `@unchecked Sendable`: the address never changes, and `TensorStorage` specifies who may write when.
public final class HostStorage: TensorStorage, @unchecked Sendable {
    let address: UnsafeMutableRawPointer
    public let byteCount: Int
    private let mapping: MappedFile?

    /// Whether the memory belongs to a mapped file and must not be written.
    public var isMapped: Bool { mapping != nil }
    public var isWritable: Bool { mapping == nil }

    /// Allocates uninitialized memory aligned to 64 bytes.
    init(byteCount: Int) {
        self.byteCount = byteCount
        address = BlockRecycler.shared.take(byteCount: byteCount)
        mapping = nil
    }

    /// Refers to bytes of a mapped file.
    package init(mapping: MappedFile, range: Range<Int>) {
        self.mapping = mapping
        byteCount = range.count
        if let base = mapping.bytes.baseAddress, !range.isEmpty {
            address = UnsafeMutableRawPointer(mutating: base + range.lowerBound)
        } else {
            // Nothing will be read: any aligned non-null address will do.
            address =
                UnsafeMutableRawPointer(bitPattern: 64)
                ?? UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1)
        }
    }

    public func read(_ range: Range<Int>, into bytes: UnsafeMutableRawBufferPointer) {
        bytes.copyMemory(
            from: UnsafeRawBufferPointer(start: address + range.lowerBound, count: range.count))
    }

    public func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        UnsafeMutableRawBufferPointer(start: address + offset, count: bytes.count).copyMemory(from: bytes)
    }

    /// Returns the pages of a mapped file to the system; they are read again if accessed.
    func releasePages() {
        guard isMapped, byteCount > 0 else { return }
        let page = UInt(getpagesize())
        let start = (UInt(bitPattern: address) + page - 1) / page * page
        let end = (UInt(bitPattern: address) + UInt(byteCount)) / page * page
        guard start < end, let pages = UnsafeMutableRawPointer(bitPattern: start) else { return }
        madvise(pages, Int(end - start), MADV_DONTNEED)
    }

    deinit {
        if mapping == nil { BlockRecycler.shared.giveBack(address, byteCount: byteCount) }
    }
}

/// The memory that tensors of this process take from the system, with blocks that are kept for reuse.
public enum HostMemory {
    /// Bytes held now.
    public static var held: Int { BlockRecycler.shared.held.load(ordering: .relaxed) }
    /// The most bytes held since the start or the last reset.
    public static var peak: Int { BlockRecycler.shared.peak.load(ordering: .relaxed) }

    /// The most bytes that `body` holds beyond what is held before it, if blocks of all sizes were kept for reuse as
    /// large ones are: from a small example, what a large one of the same kind will hold. Nothing stays kept.
    package static func growth(of body: () throws -> Void) rethrows -> Int {
        let recycler = BlockRecycler.shared
        recycler.giveAllBack()
        recycler.keepsAll.store(true, ordering: .relaxed)
        defer {
            recycler.keepsAll.store(false, ordering: .relaxed)
            recycler.giveAllBack()
        }
        let (before, peakBefore) = (held, peak)
        recycler.peak.store(before, ordering: .relaxed)
        defer { recycler.peak.max(peakBefore, ordering: .relaxed) }
        try body()
        return peak - before
    }
}

/// Keeps large freed blocks for reuse: a fresh mapping costs a page fault for every 4 KiB.
private final class BlockRecycler: Sendable {
    static let shared = BlockRecycler()

    private static let smallestKept = 1 << 18
    private static let hugePage = 1 << 21
    private static let capacity = 4 << 30
    private struct State {
        var blocks: [Int: [UInt]] = [:]
        var bytes = 0
    }
    private let state = Mutex(State())
    /// Bytes taken from the system, in blocks that are large enough to count.
    let held = Atomic(0)
    let peak = Atomic(0)
    /// Whether small blocks are kept, too.
    let keepsAll = Atomic(false)

    private static let smallestCounted = 1 << 12

    private func isKept(_ size: Int) -> Bool {
        size >= Self.smallestKept || size >= Self.smallestCounted && keepsAll.load(ordering: .relaxed)
    }

    private func count(_ change: Int, _ size: Int) {
        guard size >= Self.smallestCounted else { return }
        let now = held.add(change, ordering: .relaxed).newValue
        if change > 0 { peak.max(now, ordering: .relaxed) }
    }

    /// Frees all blocks that are kept.
    func giveAllBack() {
        let blocks = state.withLock { state in
            defer { state = State() }
            return state.blocks
        }
        for (size, addresses) in blocks {
            for address in addresses {
                free(UnsafeMutableRawPointer(bitPattern: address))
                count(-size, size)
            }
        }
    }

    func take(byteCount: Int) -> UnsafeMutableRawPointer {
        let size = Self.rounded(byteCount)
        if isKept(size) {
            let kept = state.withLock { state -> UInt? in
                guard let address = state.blocks[size]?.popLast() else { return nil }
                state.bytes -= size
                return address
            }
            if let kept, let pointer = UnsafeMutableRawPointer(bitPattern: kept) { return pointer }
        }
        var memory: UnsafeMutableRawPointer?
        guard posix_memalign(&memory, 64, size) == 0, let pointer = memory else {
            MemoryLimits.end(allocating: size)
        }
        count(size, size)
        #if os(Linux)
            if size >= Self.hugePage * 2 {
                // Huge pages are faster to fill and need fewer TLB entries.
                let start = (UInt(bitPattern: pointer) + 4095) / 4096 * 4096
                let end = (UInt(bitPattern: pointer) + UInt(size)) / 4096 * 4096
                if let pages = UnsafeMutableRawPointer(bitPattern: start) {
                    madvise(pages, Int(end - start), HugePages.advice)
                }
            }
        #endif
        return pointer
    }

    func giveBack(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
        let size = Self.rounded(byteCount)
        if isKept(size) {
            let kept = state.withLock { state -> Bool in
                guard state.bytes + size <= Self.capacity else { return false }
                state.blocks[size, default: []].append(UInt(bitPattern: pointer))
                state.bytes += size
                return true
            }
            if kept { return }
        }
        free(pointer)
        count(-size, size)
    }

    /// Rounding up makes blocks of nearly equal size interchangeable: from 1 MiB on by up to an eighth. Pages that
    /// nobody touches cost nothing.
    private static func rounded(_ byteCount: Int) -> Int {
        let unit =
            byteCount >= 1 << 20
            ? (1 << (Int.bitWidth - 1 - byteCount.leadingZeroBitCount)) / 8
            : (byteCount >= 1 << 12 ? 1 << 12 : 64)
        return max(64, (byteCount + unit - 1) / unit * unit)
    }
}

/// Runs `body` with room for `count` numbers, which ends with it.
func withScratch<Result>(
    _ count: Int, _ body: (UnsafeMutablePointer<Float>) throws -> Result
) rethrows -> Result {
    try withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, count)) { scratch in
        guard let base = scratch.baseAddress else { preconditionFailure("an allocation without an address") }
        return try body(base)
    }
}
