import ArgumentParser

struct UnlearnCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unlearn",
        abstract: "Examine whether a model has forgotten what it should, and how quickly it learns it again.",
        subcommands: [
            UnlearnExamineCommand.self, UnlearnTOFUCommand.self, UnlearnMUSECommand.self,
            UnlearnRelearnCommand.self, UnlearnRMUCommand.self,
        ])
}
