"""Training speed of the PyTorch implementation: tokens per second of whole AdamW steps.

    python train_speed.py --config config.json --batch 8 --length 256 --steps 3 --dtype bfloat16
"""
import argparse
import json
import time

import torch
from torch.nn import functional as F

from monet_torch import MonetForCausalLM, auxiliary_losses

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--config", required=True)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--length", type=int, default=256)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
parser.add_argument("--compile", action="store_true")
options = parser.parse_args()
if options.threads:
    torch.set_num_threads(options.threads)
torch.manual_seed(0)
with open(options.config) as file:
    config = json.load(file)
model = MonetForCausalLM(config)
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=0.02)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.95), weight_decay=0.1)
forward = torch.compile(model) if options.compile else model
times = []
for step in range(options.steps + 1):
    ids = torch.randint(0, config["vocab_size"], (options.batch, options.length + 1))
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16"):
        logits, routings = forward(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
    if routings:
        uniform, ambiguous = auxiliary_losses(routings)
        loss = loss + 1e-3 * uniform + 1e-3 * ambiguous
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - start)
median = sorted(times[1:])[(len(times) - 1) // 2]
print(json.dumps({
    "peer": "PyTorch " + torch.__version__, "dtype": options.dtype, "threads": torch.get_num_threads(),
    "tokens_per_second": options.batch * options.length / median, "seconds": times[1:]}))
