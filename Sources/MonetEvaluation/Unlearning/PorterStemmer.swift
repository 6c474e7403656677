/// The stems of English words by Porter's rules (1980), with the deviations of NLTK, which `rouge_score` uses.
package enum PorterStemmer {
    /// The stem of a word in lower-case letters and digits.
    package static func stem(_ word: String) -> String {
        if let irregular = irregular[word] { return irregular }
        guard word.utf8.count > 2 else { return word }
        var letters = Array(word.utf8)
        letters = plural(letters)
        letters = pastTense(letters)
        letters = finalY(letters)
        letters = doubleSuffix(letters)
        letters = applied(complexSuffixes, to: letters)
        letters = applied(simpleSuffixes, to: letters)
        letters = finalE(letters)
        if letters.hasSuffix("ll"), measure(letters.dropLast()) > 1 { letters.removeLast() }
        return String(decoding: letters, as: UTF8.self)
    }

    private typealias Letters = [UInt8]

    private static let irregular = [
        "sky": "sky", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
        "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing",
        "cannings": "canning", "canning": "canning", "howe": "howe", "proceed": "proceed", "exceed": "exceed",
        "succeed": "succeed",
    ]

    // MARK: Properties of stems

    private static func isConsonant(_ word: some RandomAccessCollection<UInt8>, _ place: Int) -> Bool {
        let letters = Array(word)
        switch letters[place] {
        case UInt8(ascii: "a"), UInt8(ascii: "e"), UInt8(ascii: "i"), UInt8(ascii: "o"), UInt8(ascii: "u"):
            return false
        case UInt8(ascii: "y"):
            // A y after a consonant is a vowel, so a run of them alternates.
            return place == 0 || !isConsonant(letters, place - 1)
        default: return true
        }
    }

    /// The number of times that a consonant follows a vowel.
    private static func measure(_ word: some RandomAccessCollection<UInt8>) -> Int {
        let letters = Array(word)
        let kinds = letters.indices.map { isConsonant(letters, $0) }
        return zip(kinds, kinds.dropFirst()).count { !$0 && $1 }
    }

    private static func hasVowel(_ word: Letters) -> Bool {
        word.indices.contains { !isConsonant(word, $0) }
    }

    private static func endsInDouble(_ word: Letters) -> Bool {
        word.count >= 2 && word[word.count - 1] == word[word.count - 2] && isConsonant(word, word.count - 1)
    }

    /// Whether a word ends in consonant, vowel, consonant, the last not w, x or y.
    private static func endsInShortSyllable(_ word: Letters) -> Bool {
        let count = word.count
        if count >= 3 {
            return isConsonant(word, count - 3) && !isConsonant(word, count - 2)
                && isConsonant(word, count - 1) && !"wxy".utf8.contains(word[count - 1])
        }
        return count == 2 && !isConsonant(word, 0) && isConsonant(word, 1)
    }

    // MARK: Steps

    private struct Rule: Sendable {
        let suffix: String
        let replacement: String
        let condition: @Sendable (Letters) -> Bool
    }

    /// The first rule whose suffix the word has decides, even if its condition fails.
    private static func applied(_ rules: [Rule], to word: Letters) -> Letters {
        for rule in rules where word.hasSuffix(rule.suffix) {
            let stem = Array(word.dropLast(rule.suffix.utf8.count))
            return rule.condition(stem) ? stem + rule.replacement.utf8 : word
        }
        return word
    }

    private static func plural(_ word: Letters) -> Letters {
        if word.count == 4, word.hasSuffix("ies") { return word.dropLast(3) + "ie".utf8 }
        return applied(
            [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")].map { suffix, replacement in
                Rule(suffix: suffix, replacement: replacement) { _ in true }
            }, to: word)
    }

    private static func pastTense(_ word: Letters) -> Letters {
        if word.hasSuffix("ied") { return word.dropLast(3) + (word.count == 4 ? "ie" : "i").utf8 }
        if word.hasSuffix("eed") {
            let stem = Array(word.dropLast(3))
            return measure(stem) > 0 ? stem + "ee".utf8 : word
        }
        for suffix in ["ed", "ing"] where word.hasSuffix(suffix) {
            let stem = Array(word.dropLast(suffix.utf8.count))
            guard hasVowel(stem) else { continue }
            if stem.hasSuffix("at") || stem.hasSuffix("bl") || stem.hasSuffix("iz") { return stem + "e".utf8 }
            if endsInDouble(stem) {
                return "lsz".utf8.contains(stem[stem.count - 1]) ? stem : Array(stem.dropLast())
            }
            return measure(stem) == 1 && endsInShortSyllable(stem) ? stem + "e".utf8 : stem
        }
        return word
    }

    private static func finalY(_ word: Letters) -> Letters {
        guard word.hasSuffix("y") else { return word }
        let stem = Array(word.dropLast())
        return stem.count > 1 && isConsonant(stem, stem.count - 1) ? stem + "i".utf8 : word
    }

    private static func doubleSuffix(_ word: Letters) -> Letters {
        if word.hasSuffix("alli"), measure(word.dropLast(4)) > 0 {
            return doubleSuffix(word.dropLast(4) + "al".utf8)
        }
        return applied(doubleSuffixes, to: word)
    }

    private static let doubleSuffixes: [Rule] =
        [
            ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"),
            ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"),
            ("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"),
            ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"),
            ("fulli", "ful"),
        ].map { suffix, replacement in
            Rule(suffix: suffix, replacement: replacement) { measure($0) > 0 }
        } + [Rule(suffix: "logi", replacement: "log") { measure($0 + "l".utf8) > 0 }]

    private static let complexSuffixes: [Rule] =
        [
            ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""),
            ("ness", ""),
        ].map { suffix, replacement in
            Rule(suffix: suffix, replacement: replacement) { measure($0) > 0 }
        }

    private static let simpleSuffixes: [Rule] =
        [
            "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
            "ism", "ate", "iti", "ous", "ive", "ize",
        ].map { suffix in
            Rule(suffix: suffix, replacement: "") { stem in
                measure(stem) > 1 && (suffix != "ion" || stem.hasSuffix("s") || stem.hasSuffix("t"))
            }
        }

    private static func finalE(_ word: Letters) -> Letters {
        guard word.hasSuffix("e") else { return word }
        let stem = Array(word.dropLast())
        let measure = measure(stem)
        return measure > 1 || measure == 1 && !endsInShortSyllable(stem) ? stem : word
    }
}

extension [UInt8] {
    fileprivate func hasSuffix(_ end: String) -> Bool { suffix(end.utf8.count).elementsEqual(end.utf8) }
}
