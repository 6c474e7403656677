import MonetFoundation

/// What a model is asked about one document.
package struct TaskItem: Sendable {
    /// The document's place among those that are evaluated.
    package let index: Int
    package let document: JSONValue
    /// The expected answer, as the rule of the task gives it.
    package let target: JSONValue
    /// The choices; empty for tasks without.
    package let choices: [String]
    /// The right choices; empty for tasks without.
    package let gold: [Int]
    package let requests: [TaskRequest]
}

/// One question to a model.
package enum TaskRequest: Sendable, Equatable {
    /// How likely is a text after another?
    case logLikelihood(context: String, continuation: String)
    /// How likely is a text?
    case rolling(text: String)
    /// How does it go on?
    case generation(context: String)

    /// What the model reads first.
    package var context: String {
        switch self {
        case .logLikelihood(let context, _), .generation(let context): context
        case .rolling(let text): text
        }
    }
}

/// A program that a model wrote, and how it fared with its tests.
package struct JudgedProgram: Sendable, Equatable {
    /// What the model added to the prompt.
    package let text: String
    /// passed, wrong, error or timeout.
    package let status: ProgramOutcome.Status
    /// Why it did not pass.
    package let detail: String

    package init(text: String, status: ProgramOutcome.Status, detail: String) {
        self.text = text
        self.status = status
        self.detail = detail
    }
}

/// A model's answer to one question.
package enum TaskResponse: Sendable, Equatable {
    /// log p, and whether each token was the most likely one.
    case logLikelihood(Double, isGreedy: Bool)
    /// log p of the whole text.
    case rolling(Double)
    /// As many texts as the task repeats the question.
    case texts([String])
    /// The same of programs, and how each fared.
    case programs([JudgedProgram])
}
