import ArgumentParser

/// Checks of the numbers by which specialists are chosen.
enum SpecialistOptions {
    /// - Throws: `ValidationError` for a number that chooses nothing sensible, NaN included.
    static func check(ratio: Double = 1, minFrequency: Double = 0) throws {
        if !(ratio >= 1 && ratio.isFinite) {
            throw ValidationError("--ratio is \(ratio), expected 1 or more")
        }
        if !(0...1).contains(minFrequency) {
            throw ValidationError("--min-frequency is \(minFrequency), expected a share from 0 to 1")
        }
    }
}
