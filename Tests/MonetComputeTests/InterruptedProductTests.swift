#if os(Linux)
    import Foundation
    import MonetCompute
    import Synchronization
    import TestSupport
    import Testing

    /// What the handler saw; globals, because a C function pointer may not capture.
    private let lowestFrame = Atomic<Int>(.max)
    private let highestFrame = Atomic<Int>(0)
    private let handledCount = Atomic<Int>(0)

    /// Signals that arrive during products. Their inner dimension is long enough for the library behind them to
    /// make memory from the heap its stack, where a handler would write over what others keep.
    @Suite struct InterruptedProductTests {
        @Test func handlersRunOnTheThreadsOwnStack() throws {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in
                withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { frame in
                    let address = Int(bitPattern: frame.baseAddress)
                    lowestFrame.min(address, ordering: .relaxed)
                    highestFrame.max(address, ordering: .relaxed)
                    handledCount.add(1, ordering: .relaxed)
                }
            }
            var previous = sigaction()
            #expect(sigaction(SIGUSR1, &action, &previous) == 0)
            defer { sigaction(SIGUSR1, &previous, nil) }

            var source = TensorSource(seed: 5)
            let (x, weight) = (source.normal([96, 700]), source.normal([80, 700]))
            let products = Products()
            let thread = Thread { products.run(x, weight) }
            thread.stackSize = Products.stackSize
            thread.start()
            products.interrupt(times: 3000)

            let (stack, outputs) = try products.finish()
            #expect(handledCount.load(ordering: .relaxed) >= 3000)
            #expect(stack.contains(lowestFrame.load(ordering: .relaxed)))
            #expect(stack.contains(highestFrame.load(ordering: .relaxed)))
            // The bound of float32 products, as in `OperationTests`.
            let expected = ReferenceMath.linear(Reference(x), Reference(weight))
            #expect(outputs.count == Products.kept)
            for output in outputs {
                #expect(relativeError(output.floats().map(Double.init), expected.values) < 1e-5)
            }
        }
    }

    /// A thread that multiplies until told to end, and what is known of it.
    private final class Products: Sendable {
        static let kept = 100
        static let stackSize = 1 << 18

        private struct State {
            var thread: pthread_t?
            var result: Result<(stack: Range<Int>, outputs: [Tensor]), any Error>?
        }
        private let state = Mutex(State())
        private let isEnding = Atomic<Bool>(false)

        func run(_ x: Tensor, _ weight: Tensor) {
            // Threads begin with the signals of their creator blocked, and those of pools block all.
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGUSR1)
            pthread_sigmask(SIG_UNBLOCK, &signals, nil)
            let backend = CPUBackend(pool: WorkerPool(threadCount: 1))
            // Frames of what it calls lie below this one.
            let end = withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) {
                Int(bitPattern: $0.baseAddress)
            }
            let result = Result {
                var outputs: [Tensor] = []
                while !isEnding.load(ordering: .acquiring) || outputs.count < Self.kept {
                    if outputs.count == Self.kept { outputs.removeFirst() }
                    outputs.append(try backend.linear(x, weight: weight, bias: nil))
                    // The first product sets the library up, which takes longer than many signals.
                    if outputs.count == 1 { state.withLock { $0.thread = pthread_self() } }
                }
                return (stack: end - Self.stackSize..<end, outputs: outputs)
            }
            state.withLock { $0 = State(thread: nil, result: result) }
        }

        /// Sends signals one after another until so many were handled; none once the thread is done, as it may
        /// be gone.
        func interrupt(times: Int) {
            let end = ContinuousClock.now + .seconds(60)
            while handledCount.load(ordering: .relaxed) < times, ContinuousClock.now < end {
                state.withLock { state in
                    if let thread = state.thread { pthread_kill(thread, SIGUSR1) }
                }
            }
        }

        func finish() throws -> (stack: Range<Int>, outputs: [Tensor]) {
            isEnding.store(true, ordering: .releasing)
            while true {
                if let result = state.withLock({ $0.result }) { return try result.get() }
                usleep(1000)
            }
        }
    }
#endif
