import Foundation
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText
import TestSupport
import Testing

/// Answers end where the chat template ends them.
@Suite struct AnswerEndTests {
    private let chatML =
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

    /// What ends an answer besides the model's own tokens, with a tokenizer that may know the mark.
    private func ends(_ template: String, tokens: String, own: [Int]? = nil) throws -> (
        ids: [Int]?, texts: [String]
    ) {
        try withTemporaryFolder { folder in
            try FileManager.default.copyItem(
                atPath: Fixture.path("text/trained.model"), toPath: folder + "/tokenizer.model")
            try AtomicFile.write(
                #"{"added_tokens_decoder": {\#(tokens)}}"#, to: folder + "/tokenizer_config.json")
            var settings = GenerationSettings()
            settings.endTokenIDs = own
            var texts = ["\n\n"]
            try AnswerEnd(ChatTemplate(template), Tokenizer(folder: folder))?
                .add(to: &settings, &texts, for: MonetConfiguration())
            return (settings.endTokenIDs, texts)
        }
    }

    @Test func marksThatAreNoTokenAreTexts() throws {
        let found = try ends(chatML, tokens: "")
        #expect(found.ids == nil && found.texts == ["\n\n", "<|im_end|>"])
    }

    @Test func marksThatAreTokensAreTokens() throws {
        let id = try Tokenizer(path: Fixture.path("text/trained.model")).pieceCount
        let token = #""\#(id)": {"content": "<|im_end|>", "special": true}"#
        let found = try ends(chatML, tokens: token)
        #expect(found.ids == MonetConfiguration().stopTokenIDs + [id] && found.texts == ["\n\n"])
        // Where nothing is to end an answer, neither does the template.
        let endless = try ends(chatML, tokens: token, own: [])
        #expect(endless.ids == [] && endless.texts == ["\n\n"])
        let text = try ends(chatML, tokens: "", own: [])
        #expect(text.ids == [] && text.texts == ["\n\n"])
    }

    /// A mark that an answer may well contain is none, and the model's own end token ends it already.
    @Test func otherEndsAddNothing() throws {
        for template in [
            "{% for m in messages %}{{ m.role }}: \"{{ m.content }}\"\n{% endfor %}",
            "{% for m in messages %}{{ m.content }}\n\n### End\n{% endfor %}",
            "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
        ] {
            let found = try ends(template, tokens: "")
            #expect(found.ids == nil && found.texts == ["\n\n"], "\(template): \(found)")
        }
    }
}
