import Foundation

/// The numbers of Python's `random.Random(seed)`: the Mersenne twister MT19937 of Matsumoto and Nishimura (1998),
/// and the choices that Python makes with it.
package struct PythonRandom {
    private static let size = 624
    private var state: [UInt32]
    private var position = PythonRandom.size

    /// The generator for a seed that is not negative, as Python's integers seed it.
    package init(seed: Int) {
        var words: [UInt32] = []
        var rest = UInt64(seed.magnitude)
        repeat {
            words.append(UInt32(truncatingIfNeeded: rest))
            rest >>= 32
        } while rest > 0
        // The reference's `init_by_array`.
        var state = [UInt32](repeating: 0, count: Self.size)
        state[0] = 19_650_218
        for index in 1..<Self.size {
            state[index] = 1_812_433_253 &* (state[index - 1] ^ (state[index - 1] >> 30)) &+ UInt32(index)
        }
        var (place, word) = (1, 0)
        for _ in 0..<max(Self.size, words.count) {
            let last = state[place - 1]
            state[place] =
                (state[place] ^ ((last ^ (last >> 30)) &* 1_664_525)) &+ words[word] &+ UInt32(word)
            place += 1
            word = (word + 1) % words.count
            if place == Self.size { (state[0], place) = (state[Self.size - 1], 1) }
        }
        for _ in 0..<(Self.size - 1) {
            let last = state[place - 1]
            state[place] = (state[place] ^ ((last ^ (last >> 30)) &* 1_566_083_941)) &- UInt32(place)
            place += 1
            if place == Self.size { (state[0], place) = (state[Self.size - 1], 1) }
        }
        state[0] = 0x8000_0000
        self.state = state
    }

    private mutating func word() -> UInt32 {
        if position == Self.size {
            for index in 0..<Self.size {
                let bits =
                    (state[index] & 0x8000_0000) | (state[(index + 1) % Self.size] & 0x7fff_ffff)
                state[index] =
                    state[(index + 397) % Self.size] ^ (bits >> 1) ^ (bits & 1 == 0 ? 0 : 0x9908_b0df)
            }
            position = 0
        }
        var value = state[position]
        position += 1
        value ^= value >> 11
        value ^= (value << 7) & 0x9d2c_5680
        value ^= (value << 15) & 0xefc6_0000
        return value ^ (value >> 18)
    }

    /// `random()`, from 0 to less than 1.
    package mutating func next() -> Double {
        let (high, low) = (word() >> 5, word() >> 6)
        return (Double(high) * 67_108_864 + Double(low)) / 9_007_199_254_740_992
    }

    /// `randrange(limit)`; the limit is from 1 to 2³² − 1.
    package mutating func below(_ limit: Int) -> Int {
        let bits = limit.bitWidth - limit.leadingZeroBitCount
        while true {
            let value = Int(word() >> UInt32(32 - bits))
            if value < limit { return value }
        }
    }

    /// `sample(range(population), count)`; the count is at most the population.
    package mutating func sample(_ count: Int, of population: Int) -> [Int] {
        var limit = 21
        if count > 5 { limit += Int(pow(4, ceil(log(Double(count * 3)) / log(4)))) }
        if population <= limit {
            var pool = Array(0..<population)
            return (0..<count).map { index in
                let place = below(population - index)
                let value = pool[place]
                pool[place] = pool[population - index - 1]
                return value
            }
        }
        var selected: Set<Int> = []
        return (0..<count).map { _ in
            var value = below(population)
            while !selected.insert(value).inserted { value = below(population) }
            return value
        }
    }

    /// `shuffle(values)`
    package mutating func shuffle<Value>(_ values: inout [Value]) {
        for index in stride(from: values.count - 1, to: 0, by: -1) { values.swapAt(index, below(index + 1)) }
    }

    /// `choices(range(population), k=count)`
    package mutating func choices(_ count: Int, of population: Int) -> [Int] {
        (0..<count).map { _ in Int(next() * Double(population)) }
    }
}
