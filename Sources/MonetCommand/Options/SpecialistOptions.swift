import ArgumentParser
import MonetInsight

/// How often experts must fire to be considered.
struct FiringOptions: ParsableArguments {
    @Option(help: "Minimum number of tokens that an expert fires on.")
    var minCount = SpecialistCriterion().minimumCount
    @Option(help: "Minimum share of tokens that an expert fires on.")
    var minFrequency = 0.0

    func validate() throws {
        if !(0...Int(UInt32.max)).contains(minCount) {
            throw ValidationError("--min-count is \(minCount), expected 0 or more")
        }
        if !(0...1).contains(minFrequency) {
            throw ValidationError("--min-frequency is \(minFrequency), expected a share from 0 to 1")
        }
    }
}

/// Which experts are a label's specialists.
struct SpecialistOptions: ParsableArguments {
    @Option(help: "Minimum ratio of a specialist's mean score on its label to that on the next label.")
    var ratio = SpecialistCriterion().ratio
    @OptionGroup var firing: FiringOptions

    func validate() throws {
        if !(ratio >= 1 && ratio.isFinite) {
            throw ValidationError("--ratio is \(ratio), expected 1 or more")
        }
    }

    var criterion: SpecialistCriterion {
        SpecialistCriterion(
            ratio: ratio, minimumCount: firing.minCount, minimumFrequency: firing.minFrequency)
    }
}
