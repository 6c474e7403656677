"""Speed of llama.cpp on a dense Llama of random weights with as many parameters as a Monet checkpoint.

    python llama_speed.py --model big --format Q8_0

The GGUF file is made once and kept in --folder. Needs llama-cpp-python and gguf.
"""
import argparse
import json
import os
import time

import gguf
import llama_cpp
import numpy
from gguf.quants import quantize

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True, help="the Monet checkpoint whose size to match")
parser.add_argument("--parameters", type=int, required=True)
parser.add_argument("--format", choices=["Q8_0", "Q4_0"], default="Q8_0")
parser.add_argument("--folder", default="/tmp")
parser.add_argument("--new-tokens", type=int, default=24)
parser.add_argument("--prompt-tokens", type=int, default=512)
parser.add_argument("--tests", default="decode")
parser.add_argument("--threads", type=int, default=os.cpu_count())
options = parser.parse_args()
with open(os.path.join(options.model, "config.json")) as file:
    config = json.load(file)
d, layers, vocabulary = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
heads = config["num_attention_heads"]
# What is left of the parameters goes into the feed-forward, in whole blocks of 32.
rest = options.parameters - 2 * vocabulary * d - d - layers * (4 * d * d + 2 * d)
width = round(rest / (layers * 3 * d) / 32) * 32
path = os.path.join(options.folder, f"llama-{options.parameters}-{options.format}.gguf")
if not os.path.exists(path):
    generator = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path + ".part", "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(d)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(d // heads)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if options.format == "Q8_0" else gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>".encode() for i in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    kind = getattr(gguf.GGMLQuantizationType, options.format)

    def matrix(name, rows, columns):
        values = generator.standard_normal((rows, columns), dtype=numpy.float32) * 0.02
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)

    matrix("token_embd.weight", vocabulary, d)
    for layer in range(layers):
        for name, rows, columns in [
            ("attn_q", d, d), ("attn_k", d, d), ("attn_v", d, d), ("attn_output", d, d), ("ffn_gate", width, d),
            ("ffn_up", width, d), ("ffn_down", d, width)]:
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
        for name in ["attn_norm", "ffn_norm"]:
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(d, dtype=numpy.float32))
    writer.add_tensor("output_norm.weight", numpy.ones(d, dtype=numpy.float32))
    matrix("output.weight", vocabulary, d)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(path + ".part", path)
llama = llama_cpp.Llama(
    path, n_ctx=1024, n_batch=512, n_threads=options.threads, n_threads_batch=options.threads, verbose=False)
generator = numpy.random.default_rng(1)
seconds = {}
if "decode" in options.tests:
    llama.eval(generator.integers(0, vocabulary, 4).tolist())
    times = []
    for _ in range(options.new_tokens):
        token = int(generator.integers(0, vocabulary))
        start = time.perf_counter()
        llama.eval([token])
        times.append(time.perf_counter() - start)
    seconds["decode"] = sorted(times)[len(times) // 2]
if "prefill" in options.tests:
    llama.reset()
    start = time.perf_counter()
    llama.eval(generator.integers(0, vocabulary, options.prompt_tokens).tolist())
    seconds["prefill"] = (time.perf_counter() - start) / options.prompt_tokens
print(json.dumps({
    "peer": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})", "format": options.format,
    "parameters": 2 * vocabulary * d + layers * (4 * d * d + 3 * d * width), "threads": options.threads,
    "tokens_per_second": {name: 1 / value for name, value in seconds.items()}}))
