#!/usr/bin/env python3
"""Items per second of `monet eval`, of lm-evaluation-harness on the PyTorch file, and of it on `monet serve`.

    python3 Benchmarks/eval_speed.py --model CHECKPOINT --monet .build/release/monet [--peer-items 4] [--items 40]

Makes items in the shape of MMLU (five examples before each, answers of one token) and of HellaSwag (none before, four
endings of about 25 tokens) from common words. The peer's time is that of its `loglikelihood` alone, with the model
loaded and warm, for the best of several batch sizes and two types; monet's is that of the whole process.
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
WORDS = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room mother
area money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city community name president team minute idea body information""".split()


def make(folder, items):
    rng = random.Random(1)

    def text(count):
        return " ".join(rng.choice(WORDS) for _ in range(count)).capitalize()

    def write(path, rows):
        path = os.path.join(folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)

    def question(_):
        return {"question": text(32) + "?", "subject": "anatomy", "choices": [text(6) for _ in range(4)], "answer": rng.randrange(4)}

    def ending(number):
        return {"ind": number, "activity_label": text(3), "ctx_a": text(22) + ".", "ctx_b": text(14), "ctx": "",
                "endings": [text(20) + "." for _ in range(4)], "label": str(rng.randrange(4))}

    write("cais/mmlu/anatomy/dev.jsonl", [question(i) for i in range(5)])
    write("cais/mmlu/anatomy/test.jsonl", [question(i) for i in range(items)])
    write("Rowan/hellaswag/train.jsonl", [ending(0)])
    write("Rowan/hellaswag/validation.jsonl", [ending(i) for i in range(items)])


def monet(options, folder, task, shots):
    start = time.time()
    subprocess.run([options.monet, "eval", "--model", options.model, "--tasks", task, "--data", folder, "--quiet",
                    "--num-fewshot", str(shots), "--limit", str(options.items)], check=True, stdout=subprocess.DEVNULL)
    return options.items / (time.time() - start)


def requests(folder, task, shots, count):
    """What the harness asks: its own prompts, from the samples that monet writes in its layout."""
    with tempfile.TemporaryDirectory() as output:
        subprocess.run([options.monet, "eval", "--model", options.small, "--tasks", task, "--data", folder, "--quiet",
                        "--num-fewshot", str(shots), "--limit", str(count), "--output", output], check=True, stdout=subprocess.DEVNULL)
        inside = os.path.join(output, os.listdir(output)[0])
        path = [f for f in os.listdir(inside) if f.startswith("samples_")][0]
        with open(os.path.join(inside, path)) as file:
            samples = [json.loads(line) for line in file]
    return [(a["arg_0"], a["arg_1"]) for s in samples for a in s["arguments"].values()]


def peer(options, folder, cases):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    best = {}
    for dtype in options.types.split(","):
        lm = HFLM(pretrained=options.model, dtype=dtype, device="cpu", trust_remote_code=True, batch_size=1)
        for size in map(int, options.batch_sizes.split(",")):
            lm.batch_size_per_gpu = size
            for task, pairs in cases.items():
                made = [Instance(request_type="loglikelihood", doc={}, arguments=p, idx=0) for p in pairs]
                start = time.time()
                lm.loglikelihood(made, disable_tqdm=True)
                rate = options.peer_items / (time.time() - start)
                print(f"peer {task} {dtype} batch {size}: {rate:.4f} items/s", flush=True)
                best[task] = max(best.get(task, 0), rate)
        del lm
    return best


def main():
    global options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--small", default="checkpoints/demo", help="a small model with a tokenizer, to write the prompts")
    parser.add_argument("--monet", default=".build/release/monet")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--peer-items", type=int, default=4)
    parser.add_argument("--types", default="bfloat16,float32")
    parser.add_argument("--batch-sizes", default="1,4")
    parser.add_argument("--tasks", default="mmlu_anatomy:5,hellaswag:0")
    options = parser.parse_args()
    tasks = [(t.split(":")[0], int(t.split(":")[1])) for t in options.tasks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        make(folder, options.items)
        first = {task: monet(options, folder, task, shots) for task, shots in tasks}
        print("monet", first, flush=True)
        best = peer(options, folder, {task: requests(folder, task, shots, options.peer_items) for task, shots in tasks})
        second = {task: monet(options, folder, task, shots) for task, shots in tasks}
        print("monet", second, flush=True)
        for task, _ in tasks:
            own = sorted([first[task], second[task]])
            print(f"{task}: monet {own[0]:.3f} to {own[1]:.3f} items/s, best peer {best[task]:.4f}, "
                  f"ratio {own[0] / best[task]:.1f} to {own[1] / best[task]:.1f}")


if __name__ == "__main__":
    main()
