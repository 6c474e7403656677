"""Makes the small benchmarks of the tests: items of this project in the formats of the hub and of the original files.

    python3 Tests/Fixtures/benchmarks/make.py

Items are made from short lists of facts, so that every format has all that the real ones contain: answers of
different lengths, labels as letters, numbers and texts, brackets, quotes, non-ASCII text and odd spaces.
"""

import csv
import json
import os
import random

ROOT = os.path.dirname(os.path.abspath(__file__))
FACTS = [
    ("Which animal lays eggs?", ["hen", "horse", "dog", "whale"]),
    ("What do plants take in from the air?", ["carbon dioxide", "sand", "iron filings", "plastic"]),
    ("Which is the largest?", ["an ocean", "a cup", "a puddle", "a bath tub filled with water"]),
    ("At what temperature does water boil at sea level?", ["100 °C", "0 °C", "12 °C", "37 °C"]),
    ("Which of these is a metal?", ["copper", "wood", "wool", "paper"]),
    ("Who writes \"plays\"?", ["a playwright", "a plumber", "a miner", "a baker"]),
    ("What pulls a stone towards the ground?", ["gravity", "sound", "light", "smoke"]),
    ("Which colour does a ripe tomato have?", ["red", "blue", "black", "grey"]),
    ("How many legs does a spider have?", ["eight", "two", "four", "six"]),
    ("What is frozen water called?", ["ice", "steam", "fog", "dew"]),
    ("Which city lies on the Seine?", ["Paris", "Rome", "København", "Łódź"]),
    ("What do bees make?", ["honey", "milk", "paper money", "glass"]),
    ("Which tool drives a nail?", ["a hammer", "a spoon", "a brush", "a sponge"]),
    ("Which is a prime number?", ["seven", "eight", "nine", "ten"]),
    ("What does a thermometer measure?", ["temperature", "weight", "time", "length"]),
    ("Where do fish live?", ["in water", "in trees", "in sand dunes", "on the Moon"]),
    ("Which season follows winter?", ["spring", "autumn", "summer", "the monsoon"]),
    ("What is 6 × 7?", ["forty-two", "36", "48", "67"]),
    ("Which organ pumps blood?", ["the heart", "the liver", "the skin", "the ear"]),
    ("What is used to see distant stars?", ["a telescope", "a microscope", "a ruler", "an oven"]),
    ("  Which of these floats on water? ", ["a cork", "a brick", "an anvil", "a coin"]),
    ("Which word means “happy”?", ["glad", "sad", "angry", "tired"]),
    ("What has keys but opens no door?", ["a piano", "a lock", "a gate", "a safe"]),
    ("Which planet is closest to the Sun?", ["Mercury", "Mars", "Neptune", "Saturn"]),
]
GOALS = [
    ("keep bread fresh", "put it into a closed box", "leave it in the rain"),
    ("cool a drink", "add some ice cubes to it", "hold it over a candle for an hour"),
    ("clean a window", "wipe it with a damp cloth", "throw a stone at it"),
    ("stop a door from creaking", "oil its hinges", "paint its handle green"),
    ("dry wet shoes", "stuff them with newspaper", "fill them with soup"),
    ("sharpen a pencil", "turn it in a sharpener", "turn it in a cup of tea"),
    ("carry water home", "use a bucket", "use a sieve"),
    ("see in the dark", "switch on a lamp", "close both eyes"),
    ("water a plant while away", "put a wick from a bottle into its pot", "send it a letter"),
    ("hang a picture", "drive a nail into the wall", "glue the wall to the floor"),
    ("make tea", "pour boiling water over the leaves", "pour sand over the leaves"),
    ("find north", "look at a compass", "look at a clock without hands"),
]
SENTENCES = [
    ("The cup did not fit into the box because the _ was too big.", "cup", "box", 1),
    ("Anna lent Maria her coat because _ was cold.", "Anna", "Maria", 2),
    ("The stone broke the window because the _ was hard.", "stone", "window", 1),
    ("Tom asked Paul for help, and _ explained the sum.", "Tom", "Paul", 2),
    ("The lamp stood behind the vase, so one saw only the _ from the door.", "lamp", "vase", 2),
    ("The soup was hotter than the tea, so the _ had to stand longer.", "soup", "tea", 1),
    ("The dog chased the cat until the _ climbed a tree.", "dog", "cat", 2),
    ("Wool keeps warmer than silk, so the _ scarf was worn in January.", "wool", "silk", 1),
    ("The path was shorter than the road, so they took the _ home.", "path", "road", 1),
    ("Lena gave Ida the book because _ had finished it.", "Lena", "Ida", 1),
    ("The rope held but the thread tore, for the _ was thin.", "rope", "thread", 2),
    ("Between the lake and the pond, ducks chose the _ since it was larger.", "lake", "pond", 1),
]
SOCIAL = [
    ("Sam found a purse and took it to the police.", "How would others describe Sam?", ["honest", "lazy", "hungry"]),
    ("Kim missed the last bus.", "What will Kim do next?", ["walk home", "board the bus", "sell the bus"]),
    ("Lee baked a cake for Ada’s birthday.", "How would Ada feel?", ["grateful", "insulted", "bored"]),
    ("Jo forgot the umbrella on a rainy day.", "What happens to Jo?", ["gets wet", "gets rich", "gets older"]),
    ("Max shouted at the child.", "How would the child feel?", ["afraid", "proud", "sleepy"]),
    ("Robin studied all week.", "Why did Robin do this?", ["to pass the test", "to lose weight", "to annoy the cat"]),
    ("Alex shared lunch with a stranger.", "What is Alex like?", ["generous", "greedy", "rude"]),
    ("Nora broke a glass by accident.", "What does Nora need to do now?", ["sweep the floor", "sing", "run a race"]),
    ("Ben waited an hour for Eva.", "How would Ben feel?", ["impatient", "surprised by gifts", "tall"]),
    ("Ola planted a tree.", "What does Ola want?", ["to see it grow", "to burn it", "to wear it"]),
]
WORDS = ["kettle", "garden", "ladder", "engine", "violin", "harbour", "orchard", "blanket", "compass", "window"]


def write(path, rows):
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def shuffled(answers, rng):
    order = list(range(len(answers)))
    rng.shuffle(order)
    return [answers[i] for i in order], order.index(0)


def split(rows, train, validation):
    return {"train": rows[:train], "validation": rows[train:train + validation], "test": rows[train + validation:]}


def arc(rng, name):
    rows = []
    for number, (question, answers) in enumerate(FACTS):
        texts, gold = shuffled(answers, rng)
        if number % 7 == 3:
            texts, gold = (texts[:3], gold) if gold < 3 else (texts[1:], gold - 1)
        labels = ["1", "2", "3", "4"] if number % 5 == 4 else ["A", "B", "C", "D"]
        rows.append({"id": f"{name}_{number}", "question": question,
                     "choices": {"text": texts, "label": labels[:len(texts)]}, "answerKey": labels[gold]})
    return rows


def original(row, stem="question"):
    choices = [{"text": t, "label": l} for t, l in zip(row["choices"]["text"], row["choices"]["label"])]
    question = {"stem": row[stem], "choices": choices}
    if "question_concept" in row:
        question["question_concept"] = row["question_concept"]
    return {"id": row["id"], "question": question, "answerKey": row["answerKey"]}


def main():
    rng = random.Random(7)
    for name in ["ARC-Easy", "ARC-Challenge"]:
        parts = split(arc(rng, name), 9, 6)
        for part, rows in parts.items():
            write(f"hub/allenai/ai2_arc/{name}/{part}.jsonl", rows)
            file = {"train": "Train", "validation": "Dev", "test": "Test"}[part]
            write(f"original/ARC-V1-Feb2018-2/{name}/{name}-{file}.jsonl", [original(r) for r in rows])
    rows = [{**r, "question_stem": r["question"], "answerKey": r["answerKey"]} for r in arc(rng, "obqa")]
    rows = [{"id": r["id"], "question_stem": r["question_stem"], "choices": r["choices"], "answerKey": r["answerKey"]} for r in rows]
    for part, own in split(rows, 9, 6).items():
        write(f"hub/allenai/openbookqa/main/{part}.jsonl", own)
        file = {"train": "train", "validation": "dev", "test": "test"}[part]
        write(f"original/OpenBookQA-V1-Sep2018/Data/Main/{file}.jsonl", [original(r, "question_stem") for r in own])
    rows = []
    for number, (question, answers) in enumerate(FACTS):
        texts, gold = shuffled(answers + [rng.choice(WORDS)], rng)
        rows.append({"id": str(number), "question": question, "question_concept": WORDS[number % len(WORDS)],
                     "choices": {"label": list("ABCDE"), "text": texts}, "answerKey": "ABCDE"[gold]})
    for part, own in {"train": rows[:12], "validation": rows[12:]}.items():
        write(f"hub/tau/commonsense_qa/{part}.jsonl", own)
        write(f"original/commonsense_qa/{'train' if part == 'train' else 'dev'}_rand_split.jsonl", [original(r) for r in own])
    rows = []
    for sentence, one, two, answer in SENTENCES:
        rows.append({"sentence": sentence, "option1": one, "option2": two, "answer": str(answer)})
    for part, own in {"train": rows[:7], "validation": rows[5:]}.items():
        write(f"hub/allenai/winogrande/winogrande_xl/{part}.jsonl", own)
        file = "train_xl" if part == "train" else "dev"
        write(f"original/winogrande_1.1/{file}.jsonl", [{"qID": r["sentence"][:9], **r} for r in own])
    rows = []
    for number, (goal, good, bad) in enumerate(GOALS):
        label = rng.randrange(2)
        rows.append({"goal": goal, "sol1": bad if label else good, "sol2": good if label else bad, "label": label})
    for part, own in {"train": rows[:7], "validation": rows[7:]}.items():
        write(f"hub/baber/piqa/{part}.jsonl", own)
        file = "train" if part == "train" else "valid"
        write(f"original/piqa/{file}.jsonl", [{k: r[k] for k in ["goal", "sol1", "sol2"]} for r in own])
        with open(os.path.join(ROOT, f"original/piqa/{file}-labels.lst"), "w") as out:
            out.writelines(f"{r['label']}\n" for r in own)
    rows = []
    for context, question, answers in SOCIAL:
        texts, gold = shuffled(answers, rng)
        rows.append({"context": context, "question": question, "answerA": texts[0], "answerB": texts[1],
                     "answerC": texts[2], "label": str(gold + 1)})
    for part, own in {"train": rows[:6], "validation": rows[6:]}.items():
        write(f"hub/lighteval/siqa/{part}.jsonl", own)
        file = "train" if part == "train" else "dev"
        write(f"original/socialiqa-train-dev/{file}.jsonl", [{k: r[k] for k in r if k != "label"} for r in own])
        with open(os.path.join(ROOT, f"original/socialiqa-train-dev/{file}-labels.lst"), "w") as out:
            out.writelines(f"{r['label']}\n" for r in own)
    rows = []
    for number, (goal, good, bad) in enumerate(GOALS):
        endings, gold = shuffled([f"{good}.", f"{bad} [substeps] and wait.", f"count the  letters of the {WORDS[number % 10]}.", "[title] go home."], rng)
        rows.append({"ind": number, "activity_label": f"How to {goal}", "ctx_a": f"[header] How to {goal} [title] What you need. ",
                     "ctx_b": "THE first step IS to" if number % 2 else "", "ctx": "", "endings": endings,
                     "source_id": f"own~{number}", "split": "train", "split_type": "indomain", "label": str(gold)})
    for part, own in {"train": rows[:7], "validation": rows[7:]}.items():
        write(f"hub/Rowan/hellaswag/{part}.jsonl", own)
        write(f"original/hellaswag/hellaswag_{'train' if part == 'train' else 'val'}.jsonl", own)
    for subject in ["anatomy", "astronomy", "business_ethics", "econometrics", "philosophy"]:
        rows = []
        for question, answers in rng.sample(FACTS, 17):
            texts, gold = shuffled(answers, rng)
            rows.append({"question": question, "subject": subject, "choices": texts, "answer": gold})
        for part, own in {"dev": rows[:5], "validation": rows[5:8], "test": rows[8:]}.items():
            write(f"hub/cais/mmlu/{subject}/{part}.jsonl", own)
            file = {"dev": "dev", "validation": "val", "test": "test"}[part]
            path = os.path.join(ROOT, f"original/data/{file}/{subject}_{file}.csv")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", newline="", encoding="utf-8") as out:
                csv.writer(out).writerows([r["question"], *r["choices"], "ABCD"[r["answer"]]] for r in own)
    rows = []
    for number, (question, answers) in enumerate(FACTS):
        texts, gold = shuffled(answers, rng)
        rows.append({"topic": ["nature", "things", "“ideas”"][number % 3], "question": question, "choices": texts, "gold": gold,
                     "hint": "" if number % 2 else "think", "number": number % 12, "text": f"{question.strip()} It is {texts[gold]}"})
    for part, own in {"train": rows[:9], "validation": rows[9:13], "test": rows[13:]}.items():
        write(f"hub/own/facts/{part}.jsonl", own)
    prompt = "def double(x):\n    \"\"\"Twice x.\n    >>> double(2)\n    4\n    \"\"\"\n"
    test = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"
    write("hub/openai/openai_humaneval/test.jsonl", [
        {"task_id": "Own/0", "prompt": prompt, "entry_point": "double", "canonical_solution": "    return 2 * x\n", "test": test},
        {"task_id": "Own/1", "prompt": prompt.replace("double", "twice"), "entry_point": "twice", "canonical_solution": "    return x + x\n", "test": test},
    ])
    problems = {
        "py": ("def double(x: int) -> int:\n    \"\"\"Twice x.\"\"\"\n", "def check(candidate):\n    assert candidate(2) == 4\ncheck(double)\n", ["\ndef", "\n#", "\nif", "\nclass"]),
        "cpp": ("#include<assert.h>\n#include<bits/stdc++.h>\n// Twice x.\nlong twice(long x) {\n", "}\nint main() {\n    assert(twice(2) == 4);\n}\n", ["\n}"]),
        "java": ("import java.util.*;\nclass Problem {\n    // Twice x.\n    public static long twice(long x) {\n", "    }\n    public static void main(String[] args) {\n    assert(twice(2) == 4);\n    }\n}\n", ["\n    }\n"]),
        "js": ("//Twice x.\nfunction twice(x){\n", "const assert = require('node:assert');\nfunction test() {\n  assert.deepEqual(twice(2),4);\n}\ntest();\n", ["\nfunction ", "\n/*", "\n//", "\nconsole.log"]),
        "lua": ("-- Twice x.\nlocal function twice(x)\n", "assert(twice(2) == 4)\n", ["\nlocal", "\nfunction", "\n--", "\n\n"]),
        "php": ("<?php\n// Twice x.\nfunction twice($x) {\n", "function test(): void { if (twice(2) !== 4) { throw new Exception(\"Test failed!\"); } }\ntest();\n", ["\nfunction", "\n?>", "\n//", "\n#"]),
    }
    for language, (prompt, tests, stops) in problems.items():
        write(f"hub/nuprl/MultiPL-E/humaneval-{language}/test.jsonl", [
            {"name": "Own_0_double", "language": language, "prompt": prompt, "doctests": "transform", "original": "own",
             "prompt_terminology": "reworded", "tests": tests, "stop_tokens": stops}])


if __name__ == "__main__":
    main()
