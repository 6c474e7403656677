import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Agreement with Jinja2 as transformers sets it up; see `generate_templates.py` beside the fixture.
@Suite struct TemplateGoldenTests {
    /// Templates that Jinja2 renders and this package refuses by name, by a part of the error.
    private static let refusals = [
        "printing a", "beyond 64 bits", "is not supported", "cannot be a key", "takes no arguments",
    ]

    @Test func rendersAsJinja2() throws {
        let golden = try JSONValue(contentsOfFile: Fixture.path("text/templates-golden.json"))
        let shared = try #require(golden["variables"])
        let cases = try #require(golden["cases"]?.arrayValue)
        #expect(cases.count >= 300)
        var refused = 0
        for item in cases {
            let source = try #require(item["template"]?.stringValue)
            let expected = item["text"]?.stringValue
            do {
                let text = try ChatTemplate(source).render(
                    messages: item["messages"] ?? [],
                    addGenerationPrompt: item["add_generation_prompt"] == true,
                    variables: item["variables"] ?? shared)
                guard let expected else {
                    Issue.record("Jinja2 fails: \(source)")
                    continue
                }
                #expect(text.unicodeScalars.elementsEqual(expected.unicodeScalars), "\(source): \(text)")
            } catch let error as TextError {
                guard expected != nil else { continue }
                refused += 1
                #expect(Self.refusals.contains { "\(error)".contains($0) }, "\(source): \(error)")
            }
        }
        #expect(refused <= 25)
    }
}
