"""Compares checkpoints in this PyTorch implementation with `monet forward`.

    python check_parity.py --monet ../../.build/release/monet CHECKPOINT...

Also checks the implementation itself where a folder holds `expected.safetensors` (the fixtures).
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

from monet_torch import MonetForCausalLM


def error(x, y) -> float:
    return ((x - y).norm() / y.norm()).item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--monet", default=".build/release/monet")
    parser.add_argument("checkpoints", nargs="+")
    options = parser.parse_args()
    worst = 0.0
    for folder in options.checkpoints:
        model = MonetForCausalLM.load(folder)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, model.config["vocab_size"], (2, 24), generator=generator)
        with torch.no_grad(), tempfile.TemporaryDirectory() as place:
            logits, _ = model(ids)
            with open(os.path.join(place, "ids.json"), "w") as file:
                json.dump(ids.tolist(), file)
            out = os.path.join(place, "out.safetensors")
            subprocess.run(
                [options.monet, "forward", "--model", folder, "--tokens", file.name, "--out", out, "--overwrite", "--quiet"], check=True)
            difference = error(load_file(out)["logits"], logits)
            line = f"{folder}: monet against PyTorch {difference:.2e}"
            for name in ["expected_f32.safetensors", "expected.safetensors"]:
                path = os.path.join(folder, name)
                if os.path.exists(path):
                    expected = load_file(path)
                    line += f", PyTorch against the authors' values {error(model(expected['input_ids'].long())[0], expected['logits']):.2e}"
                    break
        print(line)
        worst = max(worst, difference)
    return 0 if worst < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
