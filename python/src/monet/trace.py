"""Traces, what `monet trace --json` prints."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TracedToken:
    """A token with the experts that fire on it."""

    position: int
    id: int
    text: str
    _groups: tuple[dict[str, Any], ...]

    def experts(self, group: int) -> list[tuple[str, float]]:
        """The strongest experts of a group with their scores, strongest first."""
        return [(entry["expert"], float(entry["score"])) for entry in self._groups[group]["experts"]]

    def active(self, group: int) -> int:
        """How many experts of a group fire."""
        return int(self._groups[group]["active_experts"])


class Trace:
    """Which experts fire on each token of a text."""

    def __init__(self, content: dict[str, Any]):
        try:
            self.units_per_group = int(content["units_per_group"])
            self.layers_of_group: list[list[int]] = [list(group["layers"]) for group in content["groups"]]
            self.tokens = [
                TracedToken(int(token["position"]), int(token["id"]), token["text"], tuple(token["groups"]))
                for token in content["tokens"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"no trace of monet trace --json: {error!r} is missing") from error

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Trace:
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def matrix(self, expert: str) -> NDArray[np.float32]:
        """The score of an expert on every token, 0 where it is not among those listed, `[tokens]`."""
        group = int(expert.split("/")[0])
        return np.array([dict(token.experts(group)).get(expert, 0.0) for token in self.tokens], dtype=np.float32)
