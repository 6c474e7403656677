/// The forms of texts that requests have to have, checked by hand: a body may hold a million of them.
enum TextPattern: Sendable {
    /// `group/index`.
    case unit
    /// A token id.
    case number
    /// A mask's name, of which no path can be made.
    case maskName

    func matches(_ text: String) -> Bool {
        func isNumber(_ part: some Sequence<UInt8>, _ most: Int) -> Bool {
            var count = 0
            for byte in part {
                guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return false }
                count += 1
            }
            return (1...most).contains(count)
        }
        switch self {
        case .number: return isNumber(text.utf8, 9)
        case .unit:
            let parts = text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            return parts.count == 2 && isNumber(parts[0], 6) && isNumber(parts[1], 9)
        case .maskName:
            guard (1...100).contains(text.utf8.count), !text.contains("..") else { return false }
            for (place, byte) in text.utf8.enumerated() {
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
                    continue
                case UInt8(ascii: "."), UInt8(ascii: " "), UInt8(ascii: "-"):
                    if place == 0 { return false }
                default: return false
                }
            }
            return true
        }
    }

    /// The form in words.
    var words: String {
        switch self {
        case .unit: "an expert's group/index, such as 1/223"
        case .number: "a token id"
        case .maskName: "a name of letters, digits, '_', '-', '.' and spaces"
        }
    }

    /// The form as a regular expression, for the OpenAPI document.
    var expression: String {
        switch self {
        case .unit: "^[0-9]{1,6}/[0-9]{1,9}$"
        case .number: "^[0-9]{1,9}$"
        case .maskName: "^(?!.*[.][.])[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}$"
        }
    }
}
