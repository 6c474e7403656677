"""Activations, the folders of `monet activations`."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Any, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_TYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "BF16": "<u2"}


def read_safetensors(path: str | pathlib.Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, mapped; bfloat16 is widened to float32."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    length = int(data[:8].view("<u8")[0]) if data.size >= 8 else -1
    if not 0 <= length <= data.size - 8:
        raise ValueError(f"{path}: no safetensors file")
    header = json.loads(bytes(data[8:8 + length]))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        if entry["dtype"] not in _TYPES or not 0 <= first <= end <= data.size - 8 - length:
            raise ValueError(f"{path}: tensor {name!r} is not readable")
        values = data[8 + length + first:8 + length + end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values
    return tensors


@dataclass(frozen=True)
class Scores:
    """Scores as a list of coordinates: one entry for each token and unit with a score above zero."""

    token: NDArray[np.int64]
    """The token's row among all tokens of the folder."""
    group: NDArray[np.int32]
    unit: NDArray[np.int32]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Document:
    """One document's part of the arrays."""

    number: int
    tokens: NDArray[np.int32]
    rows: slice
    """Its rows in the arrays of the whole folder."""


class Activations:
    """A folder that `monet activations` wrote, as arrays over all its tokens."""

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder)
        with open(self.folder / "manifest.json", encoding="utf-8") as file:
            self.manifest: dict[str, Any] = json.load(file)
        if self.manifest.get("format") != "monet-activations" or self.manifest.get("version") != 1:
            raise ValueError(f"{self.folder / 'manifest.json'}: no activations of version 1")
        self._starts = [0]
        for shard in self.manifest["shards"]:
            self._starts.append(self._starts[-1] + shard["tokens"])

    @property
    def hooks(self) -> list[str]:
        """The hook points that were taken."""
        return list(self.manifest["hooks"])

    @property
    def is_complete(self) -> bool:
        return bool(self.manifest["is_complete"])

    def __len__(self) -> int:
        """Tokens."""
        return self._starts[-1]

    def shards(self) -> Iterator[dict[str, NDArray[Any]]]:
        """The arrays of each shard, one at a time."""
        for shard in self.manifest["shards"]:
            path = self.folder / pathlib.Path(shard["file"]).name
            if path.suffix == ".npz":
                with np.load(path) as archive:
                    yield {name: archive[name] for name in archive.files}
            else:
                yield read_safetensors(path)

    def _joined(self, name: str, dtype: Any = np.float32) -> NDArray[Any]:
        parts = [shard[name] for shard in self.shards()]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The ids of all tokens, `[tokens]`."""
        return self._joined("tokens", np.int32)

    def hook(self, name: str) -> NDArray[Any]:
        """The values at a hook point, `[tokens, …]`."""
        if name not in self.manifest["hooks"]:
            raise KeyError(f"{name}: not in {self.folder}, which has {', '.join(self.hooks) or 'no hooks'}")
        return self._joined(name)

    def scores(self, units: Iterable[str] | None = None) -> Scores:
        """The scores, of all units or of some that are written `group/index`."""
        if self.manifest["units"] == "none":
            raise KeyError(f"{self.folder} has no scores; it was made without --units")
        keys = None
        if units is not None:
            pairs = [tuple(int(part) for part in unit.split("/")) for unit in units]
            keys = np.array([group << 32 | index for group, index in pairs], dtype=np.int64)
        columns: list[list[NDArray[Any]]] = [[], [], [], []]
        for start, shard in zip(self._starts, self.shards()):
            group, unit = shard["scores.group"], shard["scores.unit"]
            kept: Any = slice(None)
            if keys is not None:
                kept = np.isin(group.astype(np.int64) << 32 | unit, keys)
            for column, values in zip(columns, (
                shard["scores.token"].astype(np.int64) + start, group, unit, shard["scores.score"])):
                column.append(values[kept])
        types = (np.int64, np.int32, np.int32, np.float32)
        return Scores(*(
            np.concatenate(column) if column else np.zeros(0, dtype=kind) for column, kind in zip(columns, types)))

    def matrix(self, units: list[str]) -> NDArray[np.float32]:
        """The scores of some units on every token, `[tokens, units]`."""
        result = np.zeros((len(self), len(units)), dtype=np.float32)
        for column, unit in enumerate(units):
            scores = self.scores([unit])
            result[scores.token, column] = scores.score
        return result

    def documents(self) -> Iterator[Document]:
        """The documents, in order."""
        for start, shard in zip(self._starts, self.shards()):
            offsets = shard["offsets"]
            for place, number in enumerate(shard["documents"]):
                first, end = int(offsets[place]), int(offsets[place + 1])
                yield Document(int(number), shard["tokens"][first:end], slice(start + first, start + end))
