import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// LightEval's cloze prompts, written out by hand for the first documents of the tests' items.
@Suite struct LightEvalTests {
    private func items(_ task: String, shots: Int = 0) throws -> [TaskItem] {
        let definition = try #require(try TaskLibrary(.lightEval).selection([task]).tasks.first)
        return try EvaluationTask(
            definition, data: DatasetFolder(Fixture.path("benchmarks/hub")), shots: shots
        ).items()
    }

    private func texts(_ item: TaskItem) -> [String] {
        item.requests.map { request in
            guard case .logLikelihood(let context, let continuation) = request else { return "" }
            return context + "|" + continuation
        }
    }

    @Test func promptsAreThoseOfTheClozeTasks() throws {
        func field(_ item: TaskItem, _ key: String) -> String { item.document[key]?.stringValue ?? "" }
        func choices(_ item: TaskItem) -> [String] {
            (item.document["choices"]?["text"] ?? item.document["choices"])?.arrayValue?.compactMap(
                \.stringValue) ?? []
        }
        let arc = try items("arc_easy")[1]
        #expect(texts(arc) == choices(arc).map { "Question: \(field(arc, "question"))\nAnswer:| \($0)" })
        let mmlu = try items("mmlu_business_ethics")[0]
        #expect(
            texts(mmlu)
                == choices(mmlu).map {
                    "The following are questions about business ethics.\nQuestion: \(field(mmlu, "question"))\nAnswer:| \($0)"
                })
        let common = try items("commonsense_qa")[0]
        #expect(texts(common) == choices(common).map { "\(field(common, "question"))| \($0)" })
        let social = try items("social_iqa")[0]
        #expect(
            texts(social)[0]
                == "\(field(social, "context")) \(field(social, "question"))| \(field(social, "answerA"))")
        // "Tom …" is the first of the validation split that is not in the training split.
        let grande = try items("winogrande")[0]
        #expect(
            texts(grande) == [
                "The soup was hotter than the tea, so the | soup had to stand longer.".replacing(
                    "| ", with: "|"), "The soup was hotter than the tea, so the |tea had to stand longer.",
            ])
        let swag = try items("hellaswag")[0]
        #expect(
            texts(swag)[0].hasPrefix(
                "How to see in the dark: How to see in the dark. What you need. The first step is to |"),
            "\(texts(swag)[0])")
    }

    /// Labels by descending count, ties in the order of `random.shuffle` with the seed 0, one example of each in turn; the
    /// pool is the same for every document.
    @Test func examplesAreBalancedAndFixed() throws {
        let found = try items("piqa", shots: 3)
        let start = texts(found[0])[0].components(separatedBy: "Question: ").dropFirst().dropLast()
        #expect(start.count == 3)
        for item in found {
            #expect(texts(item)[0].hasPrefix("Question: " + start.joined(separator: "Question: ")))
        }
    }

    /// The instruction stands once, before the examples.
    @Test func instructionsStandOnce() throws {
        let text = texts(try items("mmlu_anatomy", shots: 2)[0])[0]
        #expect(text.hasPrefix("The following are questions about anatomy.\nQuestion: "))
        #expect(text.components(separatedBy: "The following are").count == 2)
        #expect(text.components(separatedBy: "\n\nQuestion: ").count == 3)
    }
}
