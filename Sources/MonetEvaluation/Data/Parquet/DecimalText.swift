/// Decimal numbers as plain text, with as many digits after the point as their type has.
enum DecimalText {
    /// The most that a stored number takes: 256 bits.
    static let maximumByteCount = 32

    /// `value` · 10 to the power of −`scale`.
    static func text(_ value: Int, scale: Int) -> String {
        text(digits: String(value.magnitude), isNegative: value < 0, scale: scale)
    }

    /// The same for a number in two's complement, the highest byte first.
    ///
    /// - Throws: `ParquetFault` for no bytes or too many.
    static func text(_ bytes: UnsafeRawBufferPointer, scale: Int) throws -> String {
        guard let first = bytes.first, bytes.count <= maximumByteCount else {
            throw ParquetFault.malformed(
                "a decimal number of \(bytes.count) bytes, expected 1 to \(maximumByteCount)")
        }
        let isNegative = first & 0x80 != 0
        // The magnitude: for negative numbers the complement and one more.
        var magnitude = bytes.map { isNegative ? ~$0 : $0 }
        if isNegative {
            for place in magnitude.indices.reversed() {
                magnitude[place] &+= 1
                if magnitude[place] != 0 { break }
            }
        }
        // Base 10⁹ digits, the lowest first, to which one byte after another is added.
        var parts: [UInt64] = [0]
        for byte in magnitude {
            var carry = UInt64(byte)
            for place in parts.indices {
                let sum = parts[place] << 8 + carry
                parts[place] = sum % 1_000_000_000
                carry = sum / 1_000_000_000
            }
            if carry > 0 { parts.append(carry) }
        }
        var digits = ""
        for part in parts.reversed() {
            let text = String(part)
            digits += digits.isEmpty ? text : String(repeating: "0", count: 9 - text.utf8.count) + text
        }
        return text(digits: digits, isNegative: isNegative, scale: scale)
    }

    private static func text(digits: String, isNegative: Bool, scale: Int) -> String {
        let sign = isNegative ? "-" : ""
        if scale == 0 { return sign + digits }
        let padded = String(repeating: "0", count: max(0, scale + 1 - digits.utf8.count)) + digits
        return sign + padded.dropLast(scale) + "." + padded.suffix(scale)
    }
}
