import MonetFoundation
import Synchronization
import Testing

@Suite struct ParallelLoopTests {
    @Test(arguments: [0, 1, 2, 3, 1000])
    func everyTurnRunsOnce(count: Int) {
        let turns = Mutex<[Int]>([])
        ParallelLoop.run(count) { turn in turns.withLock { $0.append(turn) } }
        #expect(turns.withLock { $0.sorted() } == Array(0..<count))
    }
}
