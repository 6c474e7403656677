/// Words and pieces of words of a text as numbers of hash buckets.
///
/// A text is in lower case; its words are runs of letters, digits and apostrophes. Features are the words
/// and the runs of 3 to 5 characters of a word between spaces, each once: pieces meet inflected and
/// disguised words. FNV-1a puts them into buckets.
struct TextFeatures {
    /// Distinct buckets in rising order.
    let buckets: [Int]
    /// Of every feature: texts of any length have the norm 1.
    var value: Float { 1 / Float(max(1, buckets.count)).squareRoot() }

    init(_ text: String, bucketCount: Int) {
        var found = Set<Int>()
        var word: [UInt32] = []
        func hash(_ scalars: ArraySlice<UInt32>, kind: UInt64) {
            var value: UInt64 = 0xcbf2_9ce4_8422_2325 ^ kind
            for scalar in scalars { value = (value ^ UInt64(scalar)) &* 0x100_0000_01b3 }
            value ^= value >> 32
            found.insert(Int(value % UInt64(bucketCount)))
        }
        func close() {
            if word.isEmpty { return }
            hash(word[...], kind: 1)
            let padded = [32] + word + [32]
            for length in 3...5 where padded.count >= length {
                for start in 0...(padded.count - length) { hash(padded[start..<(start + length)], kind: 2) }
            }
            word.removeAll(keepingCapacity: true)
        }
        for scalar in text.lowercased().unicodeScalars {
            let isPart =
                scalar == "'" || scalar.properties.isAlphabetic || scalar.properties.numericType != nil
            if isPart { word.append(scalar.value) } else { close() }
        }
        close()
        buckets = found.sorted()
    }
}
