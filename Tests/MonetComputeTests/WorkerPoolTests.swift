import MonetCompute
import Synchronization
import Testing

@Suite struct WorkerPoolTests {
    @Test(arguments: [1, 2, 3, 8])
    func everyChunkRunsOnce(threads: Int) {
        let pool = WorkerPool(threadCount: threads)
        for chunks in [0, 1, 2, 7, 1000] {
            let counts = (0..<chunks).map { _ in Box() }
            pool.parallel(chunks: chunks) { counts[$0].value.add(1, ordering: .relaxed) }
            #expect(counts.allSatisfy { $0.value.load(ordering: .relaxed) == 1 })
        }
    }

    /// While one thread is held up in a chunk, the others run all that is left, its stretch included.
    @Test(arguments: [2, 3]) func chunksOfABusyThreadAreTakenOver(threads: Int) {
        let pool = WorkerPool(threadCount: threads)
        let done = Box()
        let end = ContinuousClock.now + .seconds(60)
        pool.parallel(chunks: 40) { chunk in
            if chunk == 0 {
                while done.value.load(ordering: .acquiring) < 39, ContinuousClock.now < end {}
                #expect(done.value.load(ordering: .acquiring) == 39)
            } else {
                done.value.add(1, ordering: .releasing)
            }
        }
    }

    @Test func nestedLoopsRunInPlace() {
        let pool = WorkerPool(threadCount: 2)
        let total = Box()
        pool.parallel(chunks: 4) { _ in
            pool.parallel(chunks: 5) { _ in total.value.add(1, ordering: .relaxed) }
        }
        #expect(total.value.load(ordering: .relaxed) == 20)
    }

    @Test func callersFromSeveralTasksTakeTurns() async {
        let pool = WorkerPool(threadCount: 2)
        let total = Box()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<200 {
                        pool.parallel(chunks: 3) { _ in total.value.add(1, ordering: .relaxed) }
                    }
                }
            }
        }
        #expect(total.value.load(ordering: .relaxed) == 8 * 200 * 3)
    }

    @Test func rangesCoverEverythingInOrder() {
        let pool = WorkerPool(threadCount: 3)
        for count in [0, 1, 5, 12, 1001] {
            let seen = (0..<count).map { _ in Box() }
            pool.forEachRange(of: count, minimum: 2) { range, _ in
                for index in range { seen[index].value.add(1, ordering: .relaxed) }
            }
            #expect(seen.allSatisfy { $0.value.load(ordering: .relaxed) == 1 })
        }
    }
}

private final class Box: Sendable {
    let value = Atomic<Int>(0)
}
