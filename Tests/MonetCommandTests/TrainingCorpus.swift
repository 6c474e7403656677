import MonetFoundation
import TestSupport
import Testing

/// A corpus of a few hundred sentences in three labels, and `run.yaml` for a small model of it.
func makeCorpus(_ folder: String) throws {
    var lines = ""
    for number in 0..<400 {
        lines +=
            "{\"text\": \"Sentence \(number): \(number * 37 % 101) follows \(number * 53 % 97).\", \"label\": \"l\(number % 3)\"}\n"
    }
    try AtomicFile.write(lines, to: folder + "/text.jsonl")
    let built = try Command.run(
        [
            "corpus", "build", "--tokenizer", Fixture.path("text/trained.model"), "--out", "corpus",
            "text.jsonl",
        ], in: folder)
    #expect(built.status == 0, "\(built.errors)")
    try AtomicFile.write(
        """
        model:
          preset: nano-vd
          hidden_size: 32
          num_attention_heads: 2
          num_key_value_heads: 2
          moe_experts: 9
        corpus: corpus
        sequence_length: 16
        batch_size: 4
        steps: 30
        learning_rate: 5e-3
        warmup_steps: 5
        precision: float32
        eval_every: 10
        eval_batches: 4
        save_every: 5
        log_every: 1
        """, to: folder + "/run.yaml")
}
