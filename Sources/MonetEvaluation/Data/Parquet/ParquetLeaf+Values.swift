import MonetFoundation

/// What stored values mean, as values of JSON.
extension ParquetLeaf {
    /// A value of INT32 or INT64.
    @inline(__always)
    func value(integer: Int) throws -> JSONValue {
        switch annotation {
        case nil: .integer(integer)
        default: try annotatedValue(integer: integer)
        }
    }

    private func annotatedValue(integer: Int) throws -> JSONValue {
        switch annotation {
        case .unsigned where type == .int32: .integer(Int(UInt32(truncatingIfNeeded: integer)))
        case .unsigned:
            // Beyond Int they become numbers, as in JSON text.
            integer >= 0 ? .integer(integer) : .number(Double(UInt(bitPattern: integer)))
        case .date: .string(CalendarText.date(daysSince1970: integer))
        case .time(let unit): .string(try CalendarText.time(integer, unit))
        case .timestamp(let unit, let isUTC): .string(CalendarText.timestamp(integer, unit, isUTC: isUTC))
        case .decimal(let scale): .string(DecimalText.text(integer, scale: scale))
        case .null: .null
        default: .integer(integer)
        }
    }

    /// A value of FLOAT or DOUBLE, also one that is not finite.
    @inline(__always)
    func value(number: Double) -> JSONValue { annotation == .null ? .null : .number(number) }

    @inline(__always)
    func value(bool: Bool) -> JSONValue { annotation == .null ? .null : .bool(bool) }

    /// A value of BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY or INT96.
    func value(bytes: UnsafeRawBufferPointer) throws -> JSONValue {
        switch annotation {
        case .decimal(let scale): return .string(try DecimalText.text(bytes, scale: scale))
        case .uuid:
            let digits = bytes.hexadecimal
            var text = ""
            for (index, digit) in digits.enumerated() {
                if [8, 12, 16, 20].contains(index) { text.append("-") }
                text.append(digit)
            }
            return .string(text)
        case .float16: return .number(Self.half(try Self.bits(bytes, 0, 2)))
        case .null: return .null
        default: break
        }
        if type == .int96 {
            return .string(
                CalendarText.timestamp(
                    nanoseconds: Int(truncatingIfNeeded: try Self.bits(bytes, 0, 8)),
                    julianDay: Int(try Self.bits(bytes, 8, 4))))
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw ParquetFault.notText(Array(bytes.prefix(8)))
        }
        return .string(text)
    }

    /// Bytes as a number, the lowest first.
    private static func bits(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ count: Int) throws -> UInt64 {
        var cursor = ByteCursor(bytes)
        _ = try cursor.take(start, "a number")
        return try cursor.take(count, "a number").reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// A number of 16 bits (IEEE 754's binary16), for which not every platform has a type.
    private static func half(_ bits: UInt64) -> Double {
        let fraction = Double(bits & 0x3ff)
        let exponent = Int(bits >> 10 & 0x1f)
        let magnitude =
            switch exponent {
            case 0: fraction * 0x1p-24
            case 31: fraction == 0 ? Double.infinity : Double.nan
            default: (fraction + 1024) * Double(sign: .plus, exponent: exponent - 25, significand: 1)
            }
        return bits & 0x8000 == 0 ? magnitude : -magnitude
    }
}
