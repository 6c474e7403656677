"""Records what lm-evaluation-harness asks and computes for the tests' tasks, with a model that is a formula.

    python3 -m venv venv && venv/bin/pip install lm_eval==0.4.13
    venv/bin/python Tests/Fixtures/benchmarks/make-golden.py

The model's answers depend on the texts alone (see `Formula`), so that the tests can give the same ones.
"""

import glob
import json
import os

os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["DISABLE_MULTIPROC"] = "1"

import datasets
import lm_eval
import lm_eval.api.task as task_module
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

ROOT = os.path.dirname(os.path.abspath(__file__))
BUILT_IN = ["arc_easy", "arc_challenge", "winogrande", "piqa", "social_iqa", "openbookqa", "hellaswag", "commonsense_qa",
            "mmlu_anatomy", "mmlu_astronomy", "mmlu_business_ethics", "mmlu_econometrics", "mmlu_philosophy"]
OWN = ["own_group", "own_listed", "own_mutual", "own_cloze", "own_rolling", "own_generated", "own_letters", "own_votes"]


def code(text):
    return sum(byte * (place % 31 + 1) for place, byte in enumerate(text.encode("utf-8"))) % 1009


class Formula(LM):
    def loglikelihood(self, requests):
        values = [code(r.args[0] + "|" + r.args[1]) for r in requests]
        return [(-1 - v / 100, v % 3 == 0) for v in values]

    def loglikelihood_rolling(self, requests):
        return [-1 - code(r.args[0]) / 100 for r in requests]

    def generate_until(self, requests):
        seen = {}
        result = []
        for r in requests:
            sample = seen.get(r.args[0], 0)
            seen[r.args[0]] = sample + 1
            v = code(r.args[0]) + 5 * sample
            result.append(f" so 3 + 4 = {v % 12:,}. #### {v % 12}. The best answer is ({'ABCD'[v % 4]})")
        return result


class Datasets:
    def __getattr__(self, key):
        return getattr(datasets, key)

    @staticmethod
    def load_dataset(path=None, name=None, **kwargs):
        root = os.path.join(ROOT, "hub", path)
        if name and os.path.isdir(os.path.join(root, name)):
            root = os.path.join(root, name)
        return datasets.load_dataset("json", data_files={os.path.basename(f)[:-6]: f for f in glob.glob(root + "/*.jsonl")})


def plain(value):
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def run(manager, tasks, shots):
    out = lm_eval.simple_evaluate(model=Formula(), tasks=tasks, num_fewshot=shots, task_manager=manager, bootstrap_iters=0 if shots else 1000)
    samples = {}
    for name, rows in out["samples"].items():
        samples[name] = [{"doc_id": r["doc_id"], "filter": r["filter"], "hashes": [r["doc_hash"], r["prompt_hash"], r["target_hash"]],
                          "arguments": [[a for a in arguments if isinstance(a, str)] for arguments in r["arguments"]],
                          "filtered": plain(r["filtered_resps"]) if isinstance(r["filtered_resps"][0], str) else None,
                          "metrics": {m: plain(r[m]) for m in r["metrics"]}} for r in rows]
    results = {name: {k: plain(v) for k, v in values.items() if k not in ("name", "alias", "sample_count")}
               for name, values in out["results"].items()}
    return {"tasks": tasks, "shots": shots, "samples": samples, "results": results}


def main():
    task_module.datasets = Datasets()
    manager = TaskManager(include_path=os.path.join(ROOT, "tasks"))
    runs = [run(manager, BUILT_IN, 0), run(manager, BUILT_IN, 5), run(manager, OWN, None)]
    with open(os.path.join(ROOT, "golden.json"), "w", encoding="utf-8") as out:
        json.dump({"version": lm_eval.__version__, "runs": runs}, out, ensure_ascii=False, indent=0)


if __name__ == "__main__":
    main()
