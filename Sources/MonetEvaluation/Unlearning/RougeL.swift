/// The longest common subsequence of words of two texts (Lin 2004), with the words of the package `rouge_score`:
/// lower-case letters and digits of ASCII.
public struct RougeL: Sendable, Equatable {
    /// Its share of the candidate's words.
    public let precision: Double
    /// Its share of the reference's words.
    public let recall: Double

    /// Their harmonic mean.
    public var fMeasure: Double {
        precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0
    }

    /// Compares a candidate with a reference.
    ///
    /// - `stems`: whether words of more than three letters are reduced to their stems.
    public init(reference: String, candidate: String, stems: Bool) {
        let (wanted, given) = (
            Self.words(reference, stems: stems), Self.words(candidate, stems: stems)
        )
        guard !wanted.isEmpty, !given.isEmpty else {
            (precision, recall) = (0, 0)
            return
        }
        let common = Double(Self.longestCommonSubsequence(wanted, given))
        precision = common / Double(given.count)
        recall = common / Double(wanted.count)
    }

    static func words(_ text: String, stems: Bool) -> [String] {
        text.lowercased().unicodeScalars
            .split { !("a"..."z" ~= $0 || "0"..."9" ~= $0) }
            .map { scalars in
                let word = String(String.UnicodeScalarView(scalars))
                return stems && word.utf8.count > 3 ? PorterStemmer.stem(word) : word
            }
    }

    private static func longestCommonSubsequence(_ a: [String], _ b: [String]) -> Int {
        var previous = [Int](repeating: 0, count: b.count + 1)
        for word in a {
            var row = [0]
            row.reserveCapacity(b.count + 1)
            for (place, other) in b.enumerated() {
                row.append(word == other ? previous[place] + 1 : max(previous[place + 1], row[place]))
            }
            previous = row
        }
        return previous[b.count]
    }
}
