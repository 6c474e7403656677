import Foundation

/// Python's texts: sequences of code points, compared by code points.
enum JinjaText {
    static func string(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    /// Whether the code points are the same; Swift's `==` takes "é" and "e\u{301}" for equal.
    static func equal(_ a: String, _ b: String) -> Bool {
        a.utf8.count == b.utf8.count && a.utf8.elementsEqual(b.utf8)
    }

    /// Python's `str.isspace` for one character.
    static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 9...13, 28...32, 0x85, 0xa0, 0x1680, 0x2000...0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000:
            true
        default: false
        }
    }

    private static func isLineEnd(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 10...13, 28...30, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    /// Python's `str.isprintable` for one character.
    static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator:
            false
        case .spaceSeparator: scalar == " "
        default: true
        }
    }

    static func hex(_ value: UInt32, _ width: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// `\xe9`, `\u20ac` or `\U0001f600`
    static func escaped(_ scalar: Unicode.Scalar, bytesAsHex: Bool) -> String {
        let value = scalar.value
        return value < 0x100
            ? "\\x" + hex(value, 2) : value < 0x10000 ? "\\u" + hex(value, 4) : "\\U" + hex(value, 8)
    }

    /// The text a number of times, by doubling.
    static func repeated(_ text: String, _ count: Int) -> String {
        guard count > 0, !text.isEmpty else { return "" }
        var (result, unit, rest) = ("", text, count)
        while true {
            if rest & 1 == 1 { result += unit }
            rest >>= 1
            if rest == 0 { return result }
            unit += unit
        }
    }

    // MARK: Searching

    /// The offset in bytes of the first `part` at or after the offset `start`.
    static func find(_ part: String, in text: String, from start: Int = 0) -> Int? {
        var (text, part) = (text, part)
        return text.withUTF8 { text in
            part.withUTF8 { find(UnsafeRawBufferPointer($0), UnsafeRawBufferPointer(text), start) }
        }
    }

    /// The same among bytes.
    static func find(_ part: [UInt8], in text: [UInt8], from start: Int) -> Int? {
        text.withUnsafeBytes { text in part.withUnsafeBytes { find($0, text, start) } }
    }

    private static func find(_ part: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer, _ start: Int)
        -> Int?
    {
        guard start + part.count <= text.count else { return nil }
        guard !part.isEmpty else { return start }
        if part.count == 1 { return text[start...].firstIndex(of: part[0]) }
        // Knuth, Morris and Pratt: the time is linear whatever the texts are.
        var borders = [0]
        var length = 0
        for index in 1..<max(1, part.count) {
            while length > 0, part[index] != part[length] { length = borders[length - 1] }
            if part[index] == part[length] { length += 1 }
            borders.append(length)
        }
        length = 0
        for index in start..<text.count {
            while length > 0, text[index] != part[length] { length = borders[length - 1] }
            if text[index] == part[length] { length += 1 }
            if length == part.count { return index + 1 - length }
        }
        return nil
    }

    /// Offsets in bytes of occurrences that do not overlap, at most `limit` if it is not negative.
    static func occurrences(of part: String, in text: String, limit: Int = -1) -> [Int] {
        var offsets: [Int] = []
        var start = 0
        while limit < 0 || offsets.count < limit, let found = find(part, in: text, from: start) {
            offsets.append(found)
            start = found + part.utf8.count
        }
        return offsets
    }

    static func slice(_ text: String, _ range: Range<Int>) -> String {
        String(decoding: text.utf8.dropFirst(range.lowerBound).prefix(range.count), as: UTF8.self)
    }

    /// Parts between occurrences of a separator that is not empty.
    static func split(_ text: String, by separator: String, at offsets: [Int]) -> [String] {
        var parts: [String] = []
        var start = 0
        for offset in offsets {
            parts.append(slice(text, start..<offset))
            start = offset + separator.utf8.count
        }
        parts.append(slice(text, start..<text.utf8.count))
        return parts
    }

    /// Python's `str.replace`.
    static func replace(_ old: String, by new: String, in text: String, limit: Int, _ run: JinjaRun) throws
        -> String
    {
        try run.look(at: text.utf8.count)
        if old.isEmpty {
            var scalars = String.UnicodeScalarView()
            var count = 0
            func isOpen() -> Bool { limit < 0 || count < limit }
            try run.make(bytes: text.utf8.count)
            for scalar in text.unicodeScalars {
                if isOpen() {
                    try run.make(bytes: new.utf8.count)
                    scalars.append(contentsOf: new.unicodeScalars)
                    count += 1
                }
                scalars.append(scalar)
            }
            if isOpen() { scalars.append(contentsOf: new.unicodeScalars) }
            return String(scalars)
        }
        let offsets = occurrences(of: old, in: text, limit: limit)
        if offsets.isEmpty { return text }
        try run.make(bytes: text.utf8.count + 64 * offsets.count)
        let (added, overflow) = offsets.count.multipliedReportingOverflow(by: new.utf8.count)
        try run.make(bytes: overflow ? .max : added)
        return split(text, by: old, at: offsets).joined(separator: new)
    }

    // MARK: Trimming and splitting

    /// Python's `strip`, `lstrip` and `rstrip`, of whitespace or the characters of a text.
    static func strip(_ text: String, left: Bool = true, right: Bool = true, characters: String? = nil)
        -> String
    {
        let set = characters.map { Set($0.unicodeScalars) }
        func goes(_ scalar: Unicode.Scalar) -> Bool { set?.contains(scalar) ?? isSpace(scalar) }
        var scalars = Substring(text).unicodeScalars
        if left { while let first = scalars.first, goes(first) { scalars.removeFirst() } }
        if right { while let last = scalars.last, goes(last) { scalars.removeLast() } }
        return String(Substring(scalars))
    }

    /// Python's `split()` and `rsplit()` at whitespace.
    static func words(_ text: String, limit: Int, fromRight: Bool) -> [String] {
        var scalars = Array(text.unicodeScalars)
        if fromRight { scalars.reverse() }
        var words: [String] = []
        var index = 0
        while true {
            while index < scalars.count, isSpace(scalars[index]) { index += 1 }
            guard index < scalars.count else { break }
            var end = index
            if limit >= 0, words.count >= limit {
                let rest = scalars[index...]
                words.append(fromRight ? string(rest.reversed()) : string(rest))
                break
            }
            while end < scalars.count, !isSpace(scalars[end]) { end += 1 }
            let word = scalars[index..<end]
            words.append(fromRight ? string(word.reversed()) : string(word))
            index = end
        }
        return fromRight ? words.reversed() : words
    }

    /// Python's `splitlines`.
    static func lines(_ text: String, keepsEnds: Bool = false) -> [String] {
        let scalars = Array(text.unicodeScalars)
        var lines: [String] = []
        var index = 0
        while index < scalars.count {
            var end = index
            while end < scalars.count, !isLineEnd(scalars[end]) { end += 1 }
            var next = min(end + 1, scalars.count)
            if end + 1 < scalars.count, scalars[end] == "\r", scalars[end + 1] == "\n" { next += 1 }
            lines.append(string(scalars[index..<(keepsEnds ? next : end)]))
            index = next
        }
        return lines
    }

    // MARK: Letters

    static func upper(_ text: String) -> String {
        if text.utf8.allSatisfy({ $0 < 128 }) { return text.uppercased() }
        var result = ""
        for scalar in text.unicodeScalars { result += scalar.properties.uppercaseMapping }
        return result
    }

    static func lower(_ text: String) -> String {
        if text.utf8.allSatisfy({ $0 < 128 }) { return text.lowercased() }
        let scalars = Array(text.unicodeScalars)
        var result = ""
        for index in scalars.indices { result += lower(scalars, index) }
        return result
    }

    /// The small letter at an index; a sigma at the end of a word has a form of its own.
    private static func lower(_ scalars: [Unicode.Scalar], _ index: Int) -> String {
        guard scalars[index] == "\u{3a3}" else { return scalars[index].properties.lowercaseMapping }
        let before = scalars[..<index].last { !$0.properties.isCaseIgnorable }
        let after = scalars[(index + 1)...].first { !$0.properties.isCaseIgnorable }
        let isFinal = before?.properties.isCased ?? false && !(after?.properties.isCased ?? false)
        return isFinal ? "\u{3c2}" : "\u{3c3}"
    }

    static func capitalize(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        var result = scalars.first?.properties.titlecaseMapping ?? ""
        for index in scalars.indices.dropFirst() { result += lower(scalars, index) }
        return result
    }

    /// Python's `str.title`: a capital after everything that is no letter.
    static func title(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        var result = ""
        var followsLetter = false
        for index in scalars.indices {
            result += followsLetter ? lower(scalars, index) : scalars[index].properties.titlecaseMapping
            followsLetter = scalars[index].properties.isCased
        }
        return result
    }

    /// Jinja2's filter `title`: a capital after whitespace, a hyphen or an opening bracket.
    static func titleFilter(_ text: String) -> String {
        var words: [[Unicode.Scalar]] = [[]]
        var isInGap = false
        for scalar in text.unicodeScalars {
            let isGap = isSpace(scalar) || "-({[<".unicodeScalars.contains(scalar)
            if isGap != isInGap {
                words.append([])
                isInGap = isGap
            }
            words[words.count - 1].append(scalar)
        }
        return words.map { word in
            guard let first = word.first else { return "" }
            return upper(String(first)) + lower(string(word.dropFirst()))
        }.joined()
    }

    static func isLower(_ text: String) -> Bool {
        isAll(text) {
            $0.isLowercase
        } not: {
            $0.isUppercase
        }
    }
    static func isUpper(_ text: String) -> Bool {
        isAll(text) {
            $0.isUppercase
        } not: {
            $0.isLowercase
        }
    }

    private static func isAll(
        _ text: String, _ wanted: (Unicode.Scalar.Properties) -> Bool,
        not refused: (Unicode.Scalar.Properties) -> Bool
    ) -> Bool {
        var isFound = false
        for scalar in text.unicodeScalars {
            let properties = scalar.properties
            if refused(properties) || properties.generalCategory == .titlecaseLetter { return false }
            isFound = isFound || wanted(properties)
        }
        return isFound
    }

    static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }

    static func isDecimal(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.generalCategory == .decimalNumber
    }

    static func isDigit(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.numericType == .decimal || scalar.properties.numericType == .digit
    }

    static func isWordCharacter(_ scalar: Unicode.Scalar) -> Bool {
        isLetter(scalar) || scalar.properties.numericType != nil || scalar == "_"
    }

    // MARK: Numbers

    /// Python's `float(text)`; nil where it fails, an error for what this package does not read.
    static func double(_ text: String, _ run: JinjaRun) throws -> Double? {
        let text = strip(text)
        guard try isASCII(text, run) else { return nil }
        let plain = text.drop { $0 == "+" || $0 == "-" }.lowercased()
        if text.count - plain.count <= 1, ["inf", "infinity", "nan"].contains(plain) {
            throw run.unsupported("the number '\(text)'")
        }
        let bytes = Array(text.utf8)
        for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "_") {
            let isInside = index > 0 && index + 1 < bytes.count
            guard isInside, (48...57).contains(bytes[index - 1]), (48...57).contains(bytes[index + 1]) else {
                return nil
            }
        }
        let digits = text.filter { $0 != "_" }
        // Swift reads hexadecimal numbers, which Python does not.
        guard digits.utf8.allSatisfy({ (48...57).contains($0) || "+-.eE".utf8.contains($0) }),
            digits.utf8.contains(where: { (48...57).contains($0) })
        else { return nil }
        guard let value = Self.parse(digits) else { return nil }
        guard value.isFinite else { throw run.failure("the number \(text) is too large") }
        return value
    }

    /// An error for the digits of other scripts, which Python reads.
    private static func isASCII(_ text: String, _ run: JinjaRun) throws -> Bool {
        if text.utf8.allSatisfy({ $0 < 128 }) { return true }
        guard !text.unicodeScalars.contains(where: { $0.value > 127 && isDecimal($0) }) else {
            throw run.unsupported("a number beyond ASCII")
        }
        return false
    }

    private static func parse(_ digits: String) -> Double? {
        var end: UnsafeMutablePointer<CChar>?
        return digits.withCString { start in
            let value = strtod(start, &end)
            return end.map { $0.pointee == 0 } ?? false ? value : nil
        }
    }

    /// Python's `int(text, base)`; nil where it fails.
    static func integer(_ text: String, base: Int, _ run: JinjaRun) throws -> Int? {
        guard base == 0 || (2...36).contains(base) else { return nil }
        if base == 0 { throw run.unsupported("int() with the base 0") }
        guard try isASCII(strip(text), run) else { return nil }
        var digits = Substring(strip(text).lowercased())
        let isNegative = digits.hasPrefix("-")
        if isNegative || digits.hasPrefix("+") { digits.removeFirst() }
        if let prefix = [2: "0b", 8: "0o", 16: "0x"][base], digits.hasPrefix(prefix) {
            digits.removeFirst(2)
            if digits.hasPrefix("_") { digits.removeFirst() }
        }
        guard !digits.isEmpty, !digits.hasPrefix("_"), !digits.hasSuffix("_"), !digits.contains("__") else {
            return nil
        }
        let plain = digits.filter { $0 != "_" }
        guard plain.allSatisfy({ $0.hexDigitValue ?? 99 < base || Int(String($0), radix: base) != nil }),
            !plain.contains("+"), !plain.contains("-")
        else { return nil }
        guard let value = Int((isNegative ? "-" : "") + plain, radix: base) else {
            throw run.failure("an integer beyond 64 bits")
        }
        return value
    }

    // MARK: Dates

    /// Python's `strftime` in English, for the fields that templates use.
    static func date(_ date: Date, _ format: String, _ run: JinjaRun) throws -> String {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = run.timeZone
        let now = calendar.dateComponents(
            [.year, .month, .day, .hour, .minute, .second, .weekday, .dayOfYear], from: date)
        let months = [
            "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
            "November", "December",
        ]
        let days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
        let (year, month, day) = (now.year ?? 0, now.month ?? 1, now.day ?? 1)
        let (hour, minute, second) = (now.hour ?? 0, now.minute ?? 0, now.second ?? 0)
        let weekday = (now.weekday ?? 1) - 1
        var result = ""
        var fields = Array(format.unicodeScalars)[...]
        while let scalar = fields.popFirst() {
            guard scalar == "%" else {
                result.unicodeScalars.append(scalar)
                continue
            }
            var letter = fields.popFirst()
            let isBare = letter == "-"
            if isBare { letter = fields.popFirst() }
            func number(_ value: Int, _ width: Int = 2) -> String {
                let digits = String(value)
                return String(repeating: "0", count: isBare ? 0 : max(0, width - digits.count)) + digits
            }
            switch letter {
            case "d": result += number(day)
            case "m": result += number(month)
            case "Y": result += isBare ? String(year) : number(year, 4)
            case "y": result += number(year % 100)
            case "H": result += number(hour)
            case "I": result += number((hour + 11) % 12 + 1)
            case "M": result += number(minute)
            case "S": result += number(second)
            case "j": result += number(now.dayOfYear ?? 1, 3)
            case "B" where !isBare: result += months[month - 1]
            case "b" where !isBare, "h" where !isBare: result += months[month - 1].prefix(3)
            case "A" where !isBare: result += days[weekday]
            case "a" where !isBare: result += days[weekday].prefix(3)
            case "p" where !isBare: result += hour < 12 ? "AM" : "PM"
            case "e" where !isBare: result += day < 10 ? " \(day)" : String(day)
            case "F" where !isBare: result += "\(number(year, 4))-\(number(month))-\(number(day))"
            case "T" where !isBare: result += "\(number(hour)):\(number(minute)):\(number(second))"
            case "%" where !isBare: result += "%"
            default: throw run.unsupported("the field '%\(letter.map(String.init) ?? "")' of a date")
            }
        }
        return result
    }
}
