import ArgumentParser
import MonetEvaluation

/// Answers that are generated, and programs among them that are run.
struct ProgramOptions: ParsableArguments {
    @Option(
        name: [.customShort("n"), .long],
        help: ArgumentHelp("Most tokens of each generated answer, instead of the task's.", valueName: "n"))
    var maxNewTokens: Int?
    @Option(help: ArgumentHelp("Programs to draw for each problem of a code task.", valueName: "n"))
    var samples = 1
    @Option(help: "Temperature of these programs; by default 0 for one, 0.2 for several.")
    var temperature: Double?
    @Flag(
        help: ArgumentHelp(
            "Run programs that the model writes without a sandbox.",
            discussion: "They can read, change and send whatever their user can."))
    var unsafeExecution = false

    func validate() throws {
        for (name, value) in [("samples", samples), ("max-new-tokens", maxNewTokens ?? 1)]
        where !(1...1 << 24).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 or more")
        }
        if let temperature, !(0...100).contains(temperature) {
            throw ValidationError("--temperature is \(temperature), expected 0 to 100")
        }
    }

    /// A task with these settings.
    func apply(to definition: TaskDefinition) -> TaskDefinition {
        let sampled = definition.sampling(samples, temperature: temperature)
        return maxNewTokens.map { sampled.limited(toNewTokens: $0) } ?? sampled
    }

    /// What separates programs from this machine, if a task has any.
    func isolation(_ tasks: [TaskDefinition]) throws -> ProgramIsolation? {
        let own = tasks.filter(\.runsPrograms)
        guard !own.isEmpty else { return nil }
        let isolation = try unsafeExecution ? ProgramIsolation.unsafe : .sandbox()
        for task in own { try isolation.check(task) }
        return isolation
    }
}
