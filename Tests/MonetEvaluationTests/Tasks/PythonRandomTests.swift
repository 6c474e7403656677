import MonetEvaluation
import Testing

/// Compared with Python 3.11's `random`.
@Suite struct PythonRandomTests {
    @Test func samplesArePythons() {
        var random = PythonRandom(seed: 1234)
        #expect(random.sample(6, of: 50) == [49, 28, 7, 0, 5, 37])
        #expect(random.sample(6, of: 50) == [2, 42, 44, 5, 6, 22])
        #expect(random.sample(6, of: 5000) == [1939, 142, 252, 129, 2835, 3966])
        #expect(random.sample(0, of: 10).isEmpty)
    }

    /// Below and above the sizes at which Python changes its algorithm.
    @Test func bothAlgorithmsOfSamplingArePythons() {
        var random = PythonRandom(seed: 1234)
        #expect(random.sample(5, of: 21) == [14, 3, 0, 2, 1])
        #expect(random.sample(5, of: 22) == [21, 2, 3, 11, 7])
        #expect(random.sample(6, of: 85) == [2, 3, 84, 44, 79, 61])
        #expect(random.sample(6, of: 86) == [78, 59, 19, 11, 23, 14])
    }

    @Test func shufflesAndNumbersArePythons() {
        var random = PythonRandom(seed: 0)
        var list = Array(0..<10)
        random.shuffle(&list)
        #expect(list == [7, 8, 1, 5, 3, 4, 2, 0, 9, 6])
        #expect(random.below(7) == 2)
        #expect(random.next() == 0.5833820394550312)
        #expect(random.choices(5, of: 9) == [8, 4, 2, 6, 5])
    }

    /// A seed of more than 32 bits has two words.
    @Test func longSeedsArePythons() {
        var random = PythonRandom(seed: (1 << 40) + 7)
        #expect(random.next() == 0.6137037779936511)
        #expect(
            random.sample(22, of: 100) == [
                81, 73, 90, 60, 32, 78, 16, 66, 48, 92, 46, 50, 56, 57, 47, 28, 87, 76, 23, 17, 67, 98,
            ])
    }
}
