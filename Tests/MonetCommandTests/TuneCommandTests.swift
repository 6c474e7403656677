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

    /// Little data is learned from with the defaults, too.
    @Test func defaultsLearnFromLittle() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let result = try Command.run(
                [
                    "tune", "--model", "latest/", "--data", "../chat.jsonl", "--out", "../chat", "--dtype",
                    "float32",
                ],
                in: folder + "/base")
            #expect(result.status == 0, "\(result.errors)")
            #expect(result.errors.contains("steps of"), "\(result.errors)")
            let models = try ["base", "chat"].map {
                try MonetLanguageModel.load(folder + "/\($0)/latest", for: .training)
            }
            var moved = 0
            for (old, new) in zip(models[0].parameters.all, models[1].parameters.all) {
                let isEqual = old.tensor.floats() == new.tensor.floats()
                #expect(isEqual || !old.isRouters, "\(old.name)")
                moved += isEqual ? 0 : 1
            }
            #expect(moved > 0)
            let run = try JSONValue(contentsOfFile: folder + "/chat/run.json")
            let start = try #require(run["init_from"]?.stringValue)
            #expect(start.contains("checkpoints/step-"), "\(start)")
        }
    }

    /// A base whose `config.json` has keys of other programs, and a template that writes the time.
    @Test func runsOfForeignBasesGoOn() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let path = folder + "/base/latest/config.json"
            let members = try #require(JSONValue(contentsOfFile: path).members)
            try AtomicFile.write(
                JSONValue.object(members + [.init("pad_token_id", .null)]).serialized(), to: path)
            let template = folder + "/base/latest/chat_template.jinja"
            try AtomicFile.write("{{ strftime_now('%H:%M:%S') }}" + TextFile.read(template), to: template)
            let tuned = try Command.run(
                [
                    "tune", "--model", "base/latest", "--data", "chat.jsonl", "--out", "chat", "--steps", "2",
                    "--batch-size", "2", "--accumulation", "1", "--sequence-length", "32",
                ], in: folder)
            #expect(tuned.status == 0, "\(tuned.errors)")
            #expect(
                try JSONValue(contentsOfFile: folder + "/chat/latest/config.json")["pad_token_id"] == .null)
            let go = ["tune", "--resume", "--out", "chat", "--steps"]
            // The next second has come.
            usleep(1_100_000)
            let resumed = try Command.run(go + ["3"], in: folder)
            #expect(resumed.status == 0, "\(resumed.errors)")
            let data = folder + "/chat.jsonl"
            try AtomicFile.write(
                TextFile.read(data) + "\n" + #"{"instruction": "more", "output": "x"}"#, to: data)
            let other = try Command.run(go + ["4"], in: folder)
            #expect(
                other.status == 1 && other.errors.contains("not what the run has read"), "\(other.errors)")
        }
    }

    /// A base model without a template learns conversations with adapters, then preferences, and is merged.
    @Test func adaptersAndPreferencesAreTuned() throws {
        try withTemporaryFolder { folder in
            try prepare(folder, template: false)
            func monet(_ arguments: [String], input: String = "") throws -> (output: String, errors: String) {
                let result = try Command.run(arguments, in: folder, input: input)
                #expect(result.status == 0, "\(arguments): \(result.errors)")
                return (result.output, result.errors)
            }
            try AtomicFile.write(
                "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
                    + "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}",
                to: folder + "/chat.jinja")
            let index = [
                "index", "build", "--model", "base/latest", "--corpus", "corpus", "--out", "base.sqlite",
            ]
            _ = try monet(index)
            let small = [
                "--batch-size", "2", "--accumulation", "2", "--sequence-length", "24", "--log-every", "1",
            ]
            let tuned = try monet(
                [
                    "tune", "--model", "base/latest", "--data", "chat.jsonl", "--chat-template", "chat.jinja",
                    "--lora-rank", "4", "--merge", "--epochs", "6", "--learning-rate", "2e-2", "--out",
                    "chat",
                ] + small)
            #expect(tuned.errors.contains("wrote the model with its adapters to chat/merged"))
            let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/chat/latest")
            #expect(names.contains("adapter_model.safetensors") && !names.contains("model.safetensors"))
            #expect(
                try TextFile.read(folder + "/chat/latest/chat_template.jinja")
                    == TextFile.read(folder + "/chat.jinja"))
            let ask = ["--temperature", "0", "--max-new-tokens", "4"]
            let kept = try monet(["chat", "--model", "chat/latest"] + ask, input: "7?\n").output
            #expect(kept.contains("yes"), "\(kept)")
            #expect(try monet(["chat", "--model", "chat/merged"] + ask, input: "7?\n").output == kept)
            _ = try monet(["convert", "--model", "chat/latest", "--out", "converted"])
            #expect(try monet(["chat", "--model", "converted"] + ask, input: "7?\n").output == kept)

            // Only attention changed, which moves what routers see.
            let traced = try monet(
                ["trace", "--model", "chat/latest", "--index", "base.sqlite", "--html", "t.html", "Sentence"])
            #expect(try TextFile.read(folder + "/t.html").contains("<p>model chat/latest "))
            #expect(
                traced.errors.contains("this model or the model that this one was tuned from"),
                "\(traced.errors)")
            let pages = try monet(
                ["explore", "--model", "chat/latest", "--index", "base.sqlite", "--out", "pages"])
            #expect(pages.errors.contains("tuned from"), "\(pages.errors)")

            try AtomicFile.write(
                (0..<60).map { #"{"prompt": "\#($0)?", "chosen": "no", "rejected": "yes"}"# }
                    .joined(separator: "\n"), to: folder + "/pairs.jsonl")
            let preferred = try monet(
                [
                    "tune", "--model", "chat/latest", "--preferences", "pairs.jsonl", "--beta", "0.3",
                    "--epochs",
                    "2", "--learning-rate", "1e-3", "--out", "preferred",
                ] + small)
            #expect(
                preferred.errors.contains("preference pairs") && preferred.errors.contains("accuracy 100.0%"))
            // The whole model changed: the index holds as far as the same experts are selected, and that is said.
            let later = try monet(
                [
                    "trace", "--model", "preferred/latest", "--index", "base.sqlite", "--html", "u.html",
                    "Sentence",
                ])
            #expect(
                later.errors.contains("tuned from") && later.errors.contains("was not measured"),
                "\(later.errors)")
            let origin = try #require(try TunedOrigin(folder: folder + "/preferred/latest"))
            #expect(
                origin.fingerprints.count == 2 && (0.001...1).contains(origin.selectedAsBefore ?? 0),
                "\(origin)")
            let other = try monet(["init", "--preset", "nano-vd", "--vocab-size", "4096", "--out", "other"])
            #expect(other.errors.isEmpty || !other.errors.contains("error"))
            #expect(
                try Command.run(
                    [
                        "trace", "--model", "other", "--index", "base.sqlite", "--html", "o.html",
                        "--token-ids", "5",
                    ], in: folder
                ).status == 1)
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
            for extra in [
                ["--preferences", "chat.jsonl"], ["--merge"], ["--beta", "0.2"], ["--lora-alpha", "8"],
                ["--corpus", "corpus"], ["--init-from", "base/latest"], ["--set", "data=other.jsonl"],
                ["--epochs", "0"],
            ] {
                let result = try Command.run(base + ["--data", "chat.jsonl"] + extra, in: folder)
                #expect(result.status == 64, "\(extra)")
            }
            let pairs = try Command.run(base + ["--preferences", "chat.jsonl"], in: folder)
            #expect(
                pairs.status == 1 && pairs.errors.contains("chat.jsonl, line 1: no \"chosen\""),
                "\(pairs.errors)")
            try AtomicFile.write("{% for %}", to: folder + "/broken.jinja")
            let broken = try Command.run(
                base + ["--data", "chat.jsonl", "--chat-template", "broken.jinja"], in: folder)
            #expect(broken.status == 1 && broken.errors.contains("chat_template"), "\(broken.errors)")
            #expect(try Command.run(["tune", "--resume", "--out", "chat"], in: folder).status == 1)
            for extra in [["--epochs", "2"], ["--set", "chat_template=x"], ["--init-from", "base/latest"]] {
                let result = try Command.run(["tune", "--resume", "--out", "chat"] + extra, in: folder)
                #expect(result.status == 64, "\(extra)")
            }
            let corpus = try Command.run(["tune", "--resume", "--out", "base"], in: folder)
            #expect(
                corpus.status == 1 && corpus.errors.contains("monet train --resume"), "\(corpus.errors)")
            #expect(!FileManager.default.fileExists(atPath: folder + "/chat"))
        }
    }
}
