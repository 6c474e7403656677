import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Agreement with Jinja2, set up as transformers does; see `Tests/Fixtures/text/generate.py`.
@Suite struct ChatTemplateTests {
    @Test func agreesWithJinja() throws {
        let golden = try JSONValue(contentsOfFile: Fixture.path("text/templates.json"))
        let cases = try #require(golden["cases"]?.arrayValue)
        #expect(cases.count >= 40)
        for item in cases {
            let name = try #require(item["template"]?.stringValue)
            let template = try ChatTemplate(try #require(golden["templates"]?[name]?.stringValue))
            let messages = try #require(item["messages"]?.arrayValue).map {
                ChatMessage(role: $0["role"]?.stringValue ?? "", content: $0["content"]?.stringValue ?? "")
            }
            let prompt = item["add_generation_prompt"] == true
            if let expected = item["text"]?.stringValue {
                let text = try template.render(messages, addGenerationPrompt: prompt)
                #expect(text == expected, "\(name), \(messages.map(\.role))")
            } else {
                let raised = try #require(item["raises"]?.stringValue)
                do {
                    _ = try template.render(messages, addGenerationPrompt: prompt)
                    Issue.record("\(name) did not fail on \(messages.map(\.role))")
                } catch { #expect(raised.isEmpty || "\(error)".contains(raised), "\(error)") }
            }
        }
    }

    /// Valid Jinja that is not run here is refused; nothing renders to a wrong prompt.
    @Test(arguments: [
        "{% include 'other' %}", "{% extends 'base' %}", "{% block b %}{% endblock %}",
        "{% import 'x' as y %}",
        "{% do x %}", "{{ 'a' | xmlattr }}", "{{ 'a' | pprint }}", "{{ 'a' | urlize }}",
    ])
    func unsupportedConstructsSaySo(source: String) {
        #expect {
            try ChatTemplate(source).render([ChatMessage(role: "user", content: "x")])
        } throws: { error in
            if case TextError.unsupportedTemplate = error { true } else { false }
        }
    }

    @Test(arguments: [
        "{{ unclosed", "{% if x %}", "{% endfor %}", "{% for x in %}{% endfor %}", "{{ 1 + }}", "{{ 'open }}",
        "{% set %}", "{{ (1 }}", "{% else %}", "{{ [1, }}",
    ])
    func malformedTemplatesAreErrors(source: String) {
        #expect(throws: TextError.self) {
            try ChatTemplate(source).render([ChatMessage(role: "user", content: "x")])
        }
    }

    /// A loop over a loop over a loop ends in an error or a text, not in a hang or a trap.
    @Test(arguments: [
        "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 9223372036854775807 + 1 }}", "{{ messages[99].content }}",
        "{{ 'a' * 3 }}", "{{ -9223372036854775807 - 9 }}",
    ])
    func arithmeticNeverTraps(source: String) {
        _ = try? ChatTemplate(source).render([ChatMessage(role: "user", content: "x")])
    }
}
