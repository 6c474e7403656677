import CMonetKernels
import Foundation
import Synchronization

/// Threads that run the chunks of one loop at a time, with wake-ups of about a microsecond.
///
///     pool.parallel(chunks: 8) { chunk in process(chunk) }
///
/// Workers spin briefly after a job and then park, so an idle pool takes no processor time. Each begins
/// with a stretch of chunks of its own, in order, and then helps the others. Which worker runs a chunk
/// varies; results do not, if they depend only on the chunk's index.
public final class WorkerPool: Sendable {
    /// The number of threads, including the caller's.
    public let threadCount: Int
    /// The number of threads for which loops are divided. Sums over a division are rounded by it, so that pools with
    /// one such number give the same bits, however many threads they have.
    public let shareCount: Int
    private let state: PoolState

    /// The pool that everything uses by default, with one thread per usable processor.
    public static let shared = WorkerPool(threadCount: ProcessorLimits.usableProcessors)

    /// Starts `threadCount - 1` workers in addition to the calling thread.
    ///
    /// - `shareCount`: the number of threads for which loops are divided, `threadCount` by default.
    public init(threadCount: Int, shareCount: Int? = nil) {
        self.threadCount = max(1, threadCount)
        self.shareCount = max(1, shareCount ?? threadCount)
        let state = PoolState(threadCount: self.threadCount)
        self.state = state
        for index in 1..<max(2, self.threadCount) where self.threadCount > 1 {
            let thread = Thread { state.work(as: index) }
            thread.name = "monet-worker-\(index)"
            thread.stackSize = 1 << 21
            thread.start()
        }
    }

    deinit { state.shutDown() }

    /// Runs `body` for every chunk index and returns when all are done. Nested calls run in place.
    public func parallel(chunks: Int, _ body: (Int) -> Void) {
        if chunks <= 0 { return }
        if chunks == 1 || threadCount == 1 || PoolState.isInsidePool {
            for chunk in 0..<chunks { body(chunk) }
            return
        }
        withoutActuallyEscaping(body) { state.run(chunks: chunks, body: $0) }
    }

    /// Splits `0..<count` into about `perThread * shareCount` equal ranges of at least `minimum` and
    /// runs `body` for each, with the range's index.
    public func forEachRange(
        of count: Int, minimum: Int = 1, perThread: Int = 4, _ body: (Range<Int>, Int) -> Void
    ) {
        let chunks = rangeCount(of: count, minimum: minimum, perThread: perThread)
        parallel(chunks: chunks) { chunk in
            let start = count * chunk / chunks
            let end = count * (chunk + 1) / chunks
            if start < end { body(start..<end, chunk) }
        }
    }

    /// The number of ranges that `forEachRange` makes: the size of an array of partial results.
    public func rangeCount(of count: Int, minimum: Int = 1, perThread: Int = 4) -> Int {
        count <= 0 ? 0 : max(1, min(shareCount == 1 ? 1 : shareCount * perThread, count / max(1, minimum)))
    }
}

/// What the caller and the workers share. `word` holds the job's generation (high bits), whether
/// workers may join it (bit 16) and how many have joined (low 16 bits).
private final class PoolState: @unchecked Sendable {
    private static let openBit: UInt64 = 1 << 16
    private static let countMask: UInt64 = openBit - 1
    private static let spins = 4000

    private let word = Atomic<UInt64>(0)
    private let stretches: Stretches
    private let sleepers = Atomic<Int>(0)
    private let stopped = Atomic<Bool>(false)
    private let wakeUp = NSCondition()
    private let callers = NSLock()
    private var chunks = 0
    private var body: ((Int) -> Void)?

    static var isInsidePool: Bool { monet_inside_pool() != 0 }

    init(threadCount: Int) {
        stretches = Stretches(count: threadCount)
    }

    func run(chunks: Int, body: @escaping (Int) -> Void) {
        callers.lock()
        defer { callers.unlock() }
        self.chunks = chunks
        self.body = body
        stretches.divide(chunks)
        let generation = (word.load(ordering: .relaxed) >> 17) + 1
        word.store(generation << 17 | Self.openBit, ordering: .sequentiallyConsistent)
        if sleepers.load(ordering: .sequentiallyConsistent) > 0 {
            wakeUp.lock()
            wakeUp.broadcast()
            wakeUp.unlock()
        }
        monet_set_inside_pool(1)
        stretches.drain(chunks, from: 0, body)
        monet_set_inside_pool(0)
        // No worker may join any more; wait for those that did.
        word.bitwiseXor(Self.openBit, ordering: .acquiringAndReleasing)
        var spun = 0
        while word.load(ordering: .acquiring) & Self.countMask != 0 {
            spun += 1
            if spun < Self.spins { monet_spin_hint() } else { sched_yield() }
        }
        self.body = nil
    }

    func work(as thread: Int) {
        monet_set_inside_pool(1)
        var lastGeneration: UInt64 = 0
        while !stopped.load(ordering: .relaxed) {
            guard let job = waitForJob(after: lastGeneration) else { return }
            lastGeneration = job >> 17
            // Join only while the job is open: a worker that wakes late must not see the next job's body.
            var current = job
            while true {
                guard current & Self.openBit != 0, current >> 17 == lastGeneration else { break }
                let (exchanged, original) = word.weakCompareExchange(
                    expected: current, desired: current + 1, ordering: .acquiringAndReleasing)
                if exchanged {
                    if let body { stretches.drain(chunks, from: thread, body) }
                    word.subtract(1, ordering: .acquiringAndReleasing)
                    break
                }
                current = original
            }
        }
    }

    private func waitForJob(after generation: UInt64) -> UInt64? {
        for _ in 0..<Self.spins {
            let current = word.load(ordering: .acquiring)
            if current & Self.openBit != 0, current >> 17 != generation { return current }
            monet_spin_hint()
        }
        wakeUp.lock()
        defer { wakeUp.unlock() }
        sleepers.add(1, ordering: .sequentiallyConsistent)
        defer { sleepers.subtract(1, ordering: .sequentiallyConsistent) }
        while true {
            if stopped.load(ordering: .relaxed) { return nil }
            let current = word.load(ordering: .sequentiallyConsistent)
            if current & Self.openBit != 0, current >> 17 != generation { return current }
            wakeUp.wait()
        }
    }

    func shutDown() {
        stopped.store(true, ordering: .relaxed)
        wakeUp.lock()
        wakeUp.broadcast()
        wakeUp.unlock()
    }
}

/// A job's chunks, divided into a stretch for each thread. Adjacent chunks mostly run one after the other on
/// one thread, so that what a chunk prefetches beyond its end is in the cache when the next begins.
private final class Stretches: @unchecked Sendable {
    private let count: Int
    /// The next chunk of each stretch, on a cache line of its own.
    private let next: UnsafeMutablePointer<Atomic<Int>>
    private static let spacing = 16

    init(count: Int) {
        self.count = count
        next = .allocate(capacity: count * Self.spacing)
        for place in 0..<(count * Self.spacing) { (next + place).initialize(to: Atomic(0)) }
    }

    deinit {
        next.deinitialize(count: count * Self.spacing)
        next.deallocate()
    }

    /// Begins a job of `chunks`.
    func divide(_ chunks: Int) {
        for stretch in 0..<count {
            next[stretch * Self.spacing].store(chunks * stretch / count, ordering: .relaxed)
        }
    }

    /// Runs chunks until none are left: those of the thread's own stretch, then the rest of the others.
    func drain(_ chunks: Int, from thread: Int, _ body: (Int) -> Void) {
        for turn in 0..<count {
            let stretch = (thread + turn) % count
            let end = chunks * (stretch + 1) / count
            while true {
                let chunk = next[stretch * Self.spacing].add(1, ordering: .relaxed).oldValue
                if chunk >= end { break }
                body(chunk)
            }
        }
    }
}
