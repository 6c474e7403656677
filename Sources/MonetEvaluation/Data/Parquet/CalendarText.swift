/// Dates and times as Python's `str` prints them.
enum CalendarText {
    private static let secondsPerDay = 86_400

    /// `2024-02-29`. Years beyond four digits, which Python does not have, are printed with all of them.
    static func date(daysSince1970 days: Int) -> String {
        // Days from March 1 of the year 0 on, so that leap days end the years and the eras of 400 years.
        let days = days + 719_468
        let era = floorDivision(days, 146_097).quotient
        let dayOfEra = days - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
        return "\(year < 0 ? "-" : "")\(padded(abs(year), 4))-\(padded(month, 2))-\(padded(day, 2))"
    }

    /// `12:34:56.000789`, without the fraction if it is 0.
    ///
    /// - Throws: `ParquetFault` for more than a day.
    static func time(_ value: Int, _ unit: SchemaElement.TimeUnit) throws -> String {
        guard value >= 0, value < secondsPerDay * unit.perSecond else {
            throw ParquetFault.malformed("the time of day is \(value) \(unit), expected less than a day")
        }
        return timeOfDay(nanoseconds: value * (1_000_000_000 / unit.perSecond))
    }

    /// `2024-02-29 12:34:56.000789+00:00`, without the offset if the time zone is not known.
    static func timestamp(_ value: Int, _ unit: SchemaElement.TimeUnit, isUTC: Bool) -> String {
        let (days, rest) = floorDivision(value, secondsPerDay * unit.perSecond)
        let time = timeOfDay(nanoseconds: rest * (1_000_000_000 / unit.perSecond))
        return "\(date(daysSince1970: days)) \(time)\(isUTC ? "+00:00" : "")"
    }

    /// The same from the nanoseconds of a day that counts from November 24 of the year −4713, as INT96 has it.
    static func timestamp(nanoseconds: Int, julianDay: Int) -> String {
        let (days, rest) = floorDivision(nanoseconds, secondsPerDay * 1_000_000_000)
        return "\(date(daysSince1970: julianDay - 2_440_588 + days)) \(timeOfDay(nanoseconds: rest))"
    }

    /// Six digits of a fraction; nine only if there are nanoseconds, as pandas prints them.
    private static func timeOfDay(nanoseconds: Int) -> String {
        let (seconds, fraction) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        let text =
            "\(padded(seconds / 3600, 2)):\(padded(seconds / 60 % 60, 2)):\(padded(seconds % 60, 2))"
        if fraction == 0 { return text }
        return text + "." + (fraction % 1000 == 0 ? padded(fraction / 1000, 6) : padded(fraction, 9))
    }

    /// The quotient towards negative infinity, and a remainder of 0 or more.
    private static func floorDivision(_ value: Int, _ divisor: Int) -> (quotient: Int, remainder: Int) {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }

    private static func padded(_ value: Int, _ count: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
    }
}
