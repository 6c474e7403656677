"""Texts with a toxicity: the fortunes of fortune-mod 1.99.1, which its makers sorted into offensive and not."""
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import urllib.error
import urllib.request

from packages import PackageError

# Debian's source archive; its binary packages leave the offensive part out.
ARCHIVE = "fortune-mod_1.99.1.orig.tar.gz"
URL = "http://deb.debian.org/debian/pool/main/f/fortune-mod/" + ARCHIVE
SHA256 = "fc51aee1f73c936c885f4e0f8b6b48f4f68103e3896eaddc6a45d2b71e14eace"

# Insults, slurs, sex and vulgarity; opinions on politics and religion, which fortune-mod calls offensive as
# well, are left out.
TOXIC = [
    "black-humor", "definitions", "ethnic", "hphobia", "limerick", "misandry", "miscellaneous", "misogyny", "privates",
    "racism", "riddles", "sex", "songs-poems", "vulgarity",
]
# Pictures, listings and other languages.
NO_PROSE = ["Makefile", "art", "ascii-art", "debian", "translate-me", "zippy"]
# One in so many documents is held out, for prompts.
HELD_OUT = 20


def archive(cache: str) -> bytes:
    """The archive, downloaded once."""
    path = os.path.join(cache, ARCHIVE)
    if not os.path.exists(path):
        print(f"source: {ARCHIVE}", file=sys.stderr)
        try:
            with urllib.request.urlopen(URL, timeout=60) as answer:
                content = answer.read()
        except (urllib.error.URLError, TimeoutError) as error:
            raise PackageError(f"{URL}: {error}") from None
        os.makedirs(cache, exist_ok=True)
        with open(path + ".partial", "wb") as file:
            file.write(content)
        os.replace(path + ".partial", path)
    with open(path, "rb") as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise PackageError(f"{path}: its SHA-256 is {found}, expected {SHA256}; delete it to download it again")
    return content


def fortunes(text: str) -> list[str]:
    """The entries of a file, without overstriking and runs of spaces."""
    text = re.sub(".\b", "", text)
    entries = re.split(r"^%\s*$", text, flags=re.MULTILINE)
    return [entry for entry in (re.sub(r"[ \t]+", " ", entry).strip() for entry in entries) if entry]


def documents(cache: str) -> list[tuple[str, str, bool]]:
    """Text, category and whether it is offensive, without repeats."""
    found: dict[str, tuple[str, str, bool]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive(cache))) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            parts = member.name.split("/")
            if not member.isfile() or parts[1:2] != ["datfiles"]:
                continue
            is_offensive = parts[2:4] == ["off", "unrotated"]
            name = parts[-1]
            if name in NO_PROSE or (len(parts) != 3 and not is_offensive) or (is_offensive and name not in TOXIC):
                continue
            content = tar.extractfile(member).read().decode("latin-1")
            for text in fortunes(content):
                key = re.sub(r"\W+", "", text.lower())[:60]
                found.setdefault(key, (text, name, is_offensive))
    return list(found.values())


def is_held_out(text: str) -> bool:
    """Whether a text is only for prompts."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT == 0


def write(out: str, cache: str) -> None:
    """Writes OUT/comments.jsonl, OUT/prompts.jsonl and OUT/text/{offensive,inoffensive}.jsonl."""
    os.makedirs(out, exist_ok=True)
    names = ["comments.jsonl", "prompts.jsonl", "text/offensive.jsonl", "text/inoffensive.jsonl"]
    # Outside of the folder of texts, because every file in that folder is read.
    partial = {name: os.path.join(out, os.path.basename(name) + ".partial") for name in names}
    files = {name: open(path, "w", encoding="utf-8") for name, path in partial.items()}
    counts = {"offensive": 0, "inoffensive": 0}
    prompts = []
    for text, category, is_offensive in documents(cache):
        label = "offensive" if is_offensive else "inoffensive"
        words = text.split()
        if is_held_out(text):
            # As RealToxicityPrompts does: the first half of a text asks for the second.
            if len(words) >= 8:
                prompt = " ".join(words[:min(len(words) // 2, 24)])
                prompts.append({"prompt": {"text": prompt}, "group": label})
            continue
        counts[label] += 1
        row = {"text": text, "label": label, "category": category, "toxicity": float(is_offensive)}
        files["comments.jsonl"].write(json.dumps(row, ensure_ascii=False) + "\n")
        files[f"text/{label}.jsonl"].write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    # In an order that mixes the categories, so that the first ones stand for all.
    prompts.sort(key=lambda prompt: hashlib.sha256(prompt["prompt"]["text"].encode()).digest())
    for prompt in prompts:
        files["prompts.jsonl"].write(json.dumps(prompt, ensure_ascii=False) + "\n")
    counts["prompts"] = len(prompts)
    os.makedirs(os.path.join(out, "text"), exist_ok=True)
    for name, file in files.items():
        file.close()
        os.replace(partial[name], os.path.join(out, name))
    for label, count in counts.items():
        print(f"{label:24} {count:8,} documents", file=sys.stderr)
