"""Speed of the PyTorch implementation on a checkpoint: prefill and decoding, with keys and values kept.

    python infer_speed.py --model big --dtype bfloat16 --prompt-tokens 512 --new-tokens 8

With --logits OUT.npy it writes the logits of --token-ids instead, to compare with.
"""
import argparse
import json
import time

import numpy
import torch

from monet_torch import MonetForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True)
parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
parser.add_argument("--tests", default="decode,prefill")
parser.add_argument("--prompt-tokens", type=int, default=512)
parser.add_argument("--new-tokens", type=int, default=8)
parser.add_argument("--streams", type=int, default=1)
parser.add_argument("--repeats", type=int, default=1)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--token-ids", default="")
parser.add_argument("--logits")
options = parser.parse_args()
if options.threads:
    torch.set_num_threads(options.threads)
torch.manual_seed(0)
model = MonetForCausalLM.load(options.model, getattr(torch, options.dtype))
vocabulary = model.config["vocab_size"]
with torch.inference_mode():
    if options.logits:
        ids = torch.tensor([[int(word) for word in options.token_ids.split()]])
        numpy.save(options.logits, model(ids)[0][0].float().numpy())
        raise SystemExit
    run = torch.compile(model) if options.compile else model
    seconds = {}

    def decode():
        caches = [[] for _ in model.model.layers]
        run(torch.randint(0, vocabulary, (options.streams, 4)), caches, last_only=True)
        times = []
        for _ in range(options.new_tokens):
            ids = torch.randint(0, vocabulary, (options.streams, 1))
            start = time.perf_counter()
            run(ids, caches, last_only=True)
            times.append(time.perf_counter() - start)
        return sorted(times)[len(times) // 2] / options.streams

    def prefill():
        ids = torch.randint(0, vocabulary, (1, options.prompt_tokens))
        start = time.perf_counter()
        run(ids, [[] for _ in model.model.layers], last_only=True)
        return (time.perf_counter() - start) / options.prompt_tokens

    for name in options.tests.split(","):
        times = [globals()[name]() for _ in range(options.repeats)]
        seconds[name] = sorted(times)[len(times) // 2]
print(json.dumps({
    "peer": "PyTorch " + torch.__version__, "dtype": options.dtype, "threads": torch.get_num_threads(),
    "tokens_per_second": {name: 1 / value for name, value in seconds.items()}}))
