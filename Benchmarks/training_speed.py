#!/usr/bin/env python3
"""Compares training speed with PyTorch, side by side in one run.

    python Benchmarks/training_speed.py --python .venv/bin/python --corpus runs/demo/corpus

Whole AdamW steps of the same model (512×8 layers, E 256, m 16, H 4, k 8, vocabulary 8192) on batches
of 8×256 tokens, in turns, medians over all steps but each process's first. Needs a corpus folder
(any with a vocabulary of at most 8192) and a Python with torch.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def monet(options, folder: str, dtype: str) -> list[float]:
    """Seconds of each step of `monet train`."""
    run = os.path.join(folder, "run")
    shutil.rmtree(run, ignore_errors=True)
    settings = {
        "model": {"preset": options.preset, "vocab_size": 8192}, "corpus": os.path.abspath(options.corpus),
        "sequence_length": 256, "batch_size": 8, "steps": options.steps + 1, "log_every": 1, "eval_every": 10**6,
        "eval_batches": 1, "save_every": 10**6, "precision": dtype}
    path = os.path.join(folder, "run.json")
    with open(path, "w") as file:
        json.dump(settings, file)
    subprocess.run([options.monet, "train", path, "--out", run, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    # The logged rate is the mean since the start: its changes give the single steps.
    elapsed = []
    with open(os.path.join(run, "metrics.jsonl")) as file:
        for line in file:
            row = json.loads(line)
            if "tokens_per_second" in row:
                elapsed.append(row["tokens"] / row["tokens_per_second"])
    return [after - before for before, after in zip(elapsed, elapsed[1:])]


def pytorch(options, folder: str, dtype: str) -> list[float]:
    """Seconds of each step of the PyTorch peer."""
    checkpoint = os.path.join(folder, "model")
    if not os.path.exists(checkpoint):
        subprocess.run(
            [options.monet, "init", "--preset", options.preset, "--vocab-size", "8192", "--out", checkpoint, "--quiet"], check=True,
            stdout=subprocess.DEVNULL)
    command = [
        options.python, os.path.join(root, "Benchmarks/peers/train_speed.py"), "--config",
        os.path.join(checkpoint, "config.json"), "--dtype", dtype, "--steps", str(options.steps)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=options.timeout)
    return json.loads(result.stdout.splitlines()[-1])["seconds"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--monet", default=os.path.join(root, ".build/release/monet"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--preset", default="small-vd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a peer's process may take")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    options = parser.parse_args()
    print(f"{options.preset}, batches of 8×256 tokens, {os.cpu_count()} processors")
    fastest = {"monet": (0, ""), "pytorch": (0, "")}
    for dtype in options.dtypes.split(","):
        seconds = {"monet": [], "pytorch": []}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.rounds):
                seconds["monet"] += monet(options, folder, dtype)
                try:
                    if seconds["pytorch"] is not None:
                        seconds["pytorch"] += pytorch(options, folder, dtype)
                except subprocess.TimeoutExpired:
                    seconds["pytorch"] = None
        rates = {name: 2048 / statistics.median(values) if values else None for name, values in seconds.items()}
        for name, rate in rates.items():
            fastest[name] = max(fastest[name], (rate or 0, dtype))
        if rates["pytorch"]:
            print(f"{dtype:9} monet {rates['monet']:7.1f} tokens/s  PyTorch {rates['pytorch']:7.1f} tokens/s"
                  f"  ratio {rates['monet'] / rates['pytorch']:.2f}", flush=True)
        else:
            print(f"{dtype:9} monet {rates['monet']:7.1f} tokens/s  PyTorch: no {options.steps + 1} steps"
                  f" within {options.timeout:.0f} s", flush=True)
    (ours, ours_dtype), (peer, peer_dtype) = fastest["monet"], fastest["pytorch"]
    if peer:
        print(f"fastest   monet {ours:7.1f} ({ours_dtype})  PyTorch {peer:7.1f} ({peer_dtype})  ratio {ours / peer:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
