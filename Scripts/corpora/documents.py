"""Documents of one label, chosen in an order that does not depend on the machine, written as JSONL."""
import hashlib
import json
import os
from collections.abc import Iterable


def write_documents(folder: str, label: str, documents: Iterable[str], limit: float) -> tuple[int, int]:
    """Writes at most `limit` bytes of documents to LABEL.jsonl; returns their number and bytes.

    Exact repeats are dropped. When a label has more than it may, a hash of the text decides what
    stays, so that the choice is spread over the whole source.
    """
    unique = {}
    for text in documents:
        text = text.strip("\n")
        if text.strip():
            unique.setdefault(hashlib.sha256(text.encode()).digest(), text)
    order = {key: place for place, key in enumerate(unique)}
    chosen, size = [], 0
    for key in sorted(unique):
        length = len(unique[key].encode())
        if size + length <= limit:
            chosen.append(key)
            size += length
    path = os.path.join(folder, label + ".jsonl")
    with open(path, "w", encoding="utf-8") as file:
        for key in sorted(chosen, key=order.get):
            file.write(json.dumps({"text": unique[key], "label": label}, ensure_ascii=False) + "\n")
    return len(chosen), size
