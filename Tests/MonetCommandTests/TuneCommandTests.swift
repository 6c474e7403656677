import Foundation
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// A base model becomes a chat model, from files to an answer.
@Suite struct TuneCommandTests {
    private func prepare(_ folder: String, template: Bool = true) throws {
        try makeCorpus(folder)
        let trained = try Command.run(["train", "run.yaml", "--out", "base", "--steps", "5"], in: folder)
        #expect(trained.status == 0, "\(trained.errors)")
        if template {
            try AtomicFile.write(
                "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
                    + "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}",
                to: folder + "/base/latest/chat_template.jinja")
        }
        try AtomicFile.write(
            (0..<60).map {
                #"{"messages": [{"role": "user", "content": "\#($0)?"}, {"role": "assistant", "content": "yes"}]}"#
            }.joined(separator: "\n"), to: folder + "/chat.jsonl")
    }

    @Test func aChatModelIsTuned() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let arguments = [
                "tune", "--model", "base/latest", "--data", "chat.jsonl=0.5", "--out", "chat", "--batch-size",
                "1",
                "--accumulation", "2", "--epochs", "5", "--sequence-length", "24", "--learning-rate", "1e-2",
                "--log-every", "1",
            ]
            let result = try Command.run(arguments, in: folder)
            #expect(result.status == 0, "\(result.errors)")
            #expect(result.errors.contains("conversations in") && result.errors.contains("held-out loss"))
            #expect(result.errors.contains("% of the experts that the model selected before"))
            let routing = try JSONValue(contentsOfFile: folder + "/chat/routing.json")
            let share = try #require(routing["selected_as_before"]?.doubleValue)
            #expect(share > 0.3 && share <= 1)
            #expect((routing["tokens"]?.intValue ?? 0) > 0 && routing["by_router"]?.arrayValue?.count == 2)
            let models = try ["base", "chat"].map {
                try MonetLanguageModel.load(folder + "/\($0)/latest", for: .training)
            }
            for (old, new) in zip(models[0].parameters.all, models[1].parameters.all) where old.isRouters {
                #expect(old.tensor.floats() == new.tensor.floats(), "\(old.name)")
            }
            let answer = try Command.run(
                ["chat", "--model", "chat/latest", "--temperature", "0", "--max-new-tokens", "4"], in: folder,
                input: "7?\n")
            #expect(answer.status == 0 && answer.output.contains("yes"), "\(answer.output) \(answer.errors)")
            // A finished run has nothing left to do, and a second one is not written over it.
            #expect(try Command.run(["tune", "--resume", "--out", "chat"], in: folder).status == 0)
            let again = try Command.run(arguments, in: folder)
            #expect(again.status == 1 && again.errors.contains("a run is there already"))
        }
    }

    @Test func whatIsMissingIsNamed() throws {
        try withTemporaryFolder { folder in
            try prepare(folder, template: false)
            let base = ["tune", "--model", "base/latest", "--out", "chat"]
            let plain = try Command.run(base + ["--data", "chat.jsonl"], in: folder)
            #expect(plain.status == 1 && plain.errors.contains("no chat_template"), "\(plain.errors)")
            try AtomicFile.write("{{ messages[0].content }}", to: folder + "/base/latest/chat_template.jinja")
            let constant = try Command.run(base + ["--data", "chat.jsonl"], in: folder)
            #expect(constant.status == 1 && !constant.errors.isEmpty, "\(constant.errors)")
            for (data, status, words) in [
                ("none.jsonl", 1, "none.jsonl"), ("chat.jsonl=0", 64, "more than 0"),
                ("chat.jsonl=-1", 64, "more than 0"),
            ] {
                let result = try Command.run(base + ["--data", data], in: folder)
                #expect(result.status == Int32(status) && result.errors.contains(words), "\(result.errors)")
            }
            #expect(try Command.run(base, in: folder).status == 64)
            #expect(try Command.run(["tune", "--resume", "--out", "chat"], in: folder).status == 1)
            #expect(!FileManager.default.fileExists(atPath: folder + "/chat"))
        }
    }
}
