/// Words and character n-grams of a text as hash buckets.
///
/// The text is lowercased; its words are runs of letters, digits and apostrophes. Features are the words and
/// the runs of 3 to 5 characters of each word padded with spaces, each counted once; n-grams match inflected
/// and disguised words. FNV-1a maps features to buckets.
struct TextFeatures {
    /// Distinct buckets in ascending order.
    let buckets: [Int]
    /// The value of every feature, chosen so that texts of any length have norm 1.
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
