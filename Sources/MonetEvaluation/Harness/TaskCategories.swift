import MonetFoundation

/// How the documents of tasks are divided into categories.
public enum TaskCategories: Sendable, Equatable {
    /// Each task is a category.
    case tasks
    /// The fourteen categories of MMLU-Pro: the documents' own column, or for MMLU the category of the subject.
    case mmluPro
    /// The values of a column of the documents.
    case column(String)

    /// The categories that a name stands for: `tasks`, `mmlu-pro`, or a column.
    public init(_ name: String) {
        switch name {
        case "tasks": self = .tasks
        case "mmlu-pro": self = .mmluPro
        default: self = .column(name)
        }
    }

    /// The category of a document.
    ///
    /// - Throws: `TaskError.unusableDocument` for one that has none.
    func category(of document: JSONValue, in task: EvaluationTask, at index: Int) throws -> String {
        switch self {
        case .tasks: return task.definition.name
        case .column(let name):
            guard let value = document[name], let text = value.stringValue ?? value.intValue.map(String.init)
            else {
                throw TaskError.unusableDocument(
                    task: task.definition.name, document: task.name(of: index),
                    reason: "it has no text in '\(name)'")
            }
            return text
        case .mmluPro:
            if let text = document["category"]?.stringValue { return text }
            let subject = document["subject"]?.stringValue ?? task.definition.datasetName ?? ""
            guard let category = MMLUSubjects.categories.first(where: { $0.subjects.contains(subject) })
            else {
                throw TaskError.unusableDocument(
                    task: task.definition.name, document: task.name(of: index),
                    reason: "'\(subject)' is no subject of MMLU, and there is no column 'category'")
            }
            return category.name
        }
    }

    /// The names in the order of reports: MMLU-Pro's own, others as they come.
    func ordered(_ names: [String]) -> [String] {
        guard self == .mmluPro else { return names }
        let known = MMLUSubjects.categories.map(\.name)
        return known.filter(names.contains) + names.filter { !known.contains($0) }
    }
}
