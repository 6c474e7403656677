"""Expert indices, the SQLite files of `monet index build`."""

from __future__ import annotations

import pathlib
import sqlite3
from dataclasses import dataclass, field
from types import TracebackType
from typing import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

_APPLICATION = 0x4D6E4578
_VERSIONS = (2, 3)
_FIRING = np.dtype([("score", "<f4"), ("document", "<u4"), ("position", "<u4")])
_ONLY_LABEL = 1e9


class IndexFormatError(ValueError):
    """A file that is no expert index, or one of another version."""


@dataclass(frozen=True)
class Found:
    """An expert that a search found."""

    expert: str
    mean: float
    """Mean score over all tokens."""
    frequency: float
    """Share of tokens that fire it."""
    max: float
    ratio: float | None = None
    """Mean score on the label divided by that on the next one; infinite without a second label."""
    share: float | None = None
    """Share of the token in the summed scores of the expert's top tokens."""


@dataclass(frozen=True)
class Context:
    """A token that fires an expert, with the tokens around it."""

    score: float
    document: int
    position: int
    tokens: tuple[str, ...]
    place: int
    """Index of the token in `tokens`."""

    @property
    def token(self) -> str:
        return self.tokens[self.place]


@dataclass(frozen=True)
class Expert:
    """What an index holds about one expert."""

    expert: str
    halves: tuple[int, int] | None
    layers: tuple[int, ...]
    mean: float
    frequency: float
    count: int
    max: float
    label_means: Mapping[str, float]
    """Mean score by label; by `set/label` where the index has several label sets."""
    histogram: NDArray[np.uint32] = field(repr=False)
    contexts: tuple[Context, ...] = field(repr=False)
    explanations: tuple[str, ...] = ()
    note: str = ""
    tags: tuple[str, ...] = ()

    @property
    def top_tokens(self) -> list[str]:
        """The types of the strongest tokens, largest sum of scores first."""
        sums: dict[str, float] = {}
        for context in self.contexts:
            sums[context.token] = sums.get(context.token, 0.0) + context.score
        return sorted(sums, key=lambda token: (-sums[token], token))


class Index:
    """An expert index, opened for reading.

    Experts are written `group/index`, with index = i·E + j for the halves i and j.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = str(path)
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError(self.path)
        self._database = sqlite3.connect(pathlib.Path(path).absolute().as_uri() + "?mode=ro", uri=True)
        self._database.row_factory = sqlite3.Row
        try:
            application = self._database.execute("PRAGMA application_id").fetchone()[0]
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise IndexFormatError(f"{self.path}: {error}") from error
        if application != _APPLICATION:
            raise IndexFormatError(f"{self.path}: another kind of SQLite file, no expert index")
        if version not in _VERSIONS:
            raise IndexFormatError(f"{self.path}: schema version {version}, expected {_VERSIONS[-1]}")
        self._has_notes = version >= 3
        self.metadata: dict[str, str] = dict(
            tuple(row) for row in self._database.execute("SELECT key, value FROM meta"))
        try:
            self.groups = int(self.metadata["groups"])
            self.units_per_group = int(self.metadata["units_per_group"])
            self.experts_per_side = int(self.metadata["experts_per_side"]) or None
            self._layers, self._per_router = int(self.metadata["layers"]), int(self.metadata["layers_per_router"])
        except (KeyError, ValueError) as error:
            raise IndexFormatError(f"{self.path}: metadata: {error}") from error
        self.labels: dict[str, list[str]] = {}
        self._label_ids: dict[tuple[str, str], int] = {}
        for row in self._database.execute(
            "SELECT label.id, label_set.name AS kind, label.name FROM label "
            "JOIN label_set ON label_set.id = set_id ORDER BY label.id"):
            self.labels.setdefault(row["kind"], []).append(row["name"])
            self._label_ids[row["kind"], row["name"]] = row["id"]

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Experts that fired."""
        return int(self._database.execute("SELECT count(*) FROM expert").fetchone()[0])

    def __iter__(self) -> Iterator[str]:
        for row in self._database.execute("SELECT router_group, expert FROM expert"):
            yield f"{row[0]}/{row[1]}"

    def _key(self, expert: str) -> tuple[int, int]:
        try:
            group, index = (int(part) for part in expert.split("/"))
        except ValueError:
            raise ValueError(f"expert {expert!r}, expected GROUP/INDEX") from None
        if not (0 <= group < self.groups and 0 <= index < self.units_per_group):
            raise ValueError(
                f"expert {expert!r}, expected 0/0 to {self.groups - 1}/{self.units_per_group - 1}")
        return group, index

    def statistics(self) -> NDArray[np.void]:
        """All experts that fired as a structured array: group, expert, mean, frequency, count, max."""
        names = [("group", "i4"), ("expert", "i4"), ("mean", "f8"), ("frequency", "f8"), ("count", "i8"), ("max", "f8")]
        rows = self._database.execute("SELECT router_group, expert, mean, frequency, count, max FROM expert")
        return np.array([tuple(row) for row in rows], dtype=names)

    def find(
        self, *, label: str | None = None, label_set: str | None = None, token: str | None = None,
        group: int | None = None, min_count: int = 50, limit: int = 20,
    ) -> list[Found]:
        """Experts of a label by ratio, of a token by share, or all by frequency; rare experts are left out."""
        if label is not None and token is not None:
            raise ValueError("give a label or a token, not both")
        where, values = ["e.count >= ?"], [min_count]
        source, extra, order = "expert e", "", "e.frequency"
        if label is not None:
            matches = [
                number for (kind, name), number in self._label_ids.items()
                if name == label and label_set in (None, kind)]
            if len(matches) != 1:
                known = ", ".join(name for _, name in self._label_ids)
                raise ValueError(
                    f"label {label!r} is in {len(matches)} label sets, expected one; the labels are {known}")
            source = "specialty s JOIN expert e USING (router_group, expert)"
            extra, order = ", s.ratio AS ratio", "s.ratio"
            where.append("s.label = ?")
            values.append(matches[0])
        elif token is not None:
            source = "expert_token t JOIN expert e USING (router_group, expert)"
            extra, order = ", t.share AS share", "t.share"
            where.append("t.token IN (SELECT id FROM token WHERE trim(text) = ?)")
            values.append(token.strip())  # type: ignore[arg-type]
        if group is not None:
            where.append("e.router_group = ?")
            values.append(group)
        rows = self._database.execute(
            f"SELECT e.router_group, e.expert, e.mean, e.frequency, e.max{extra} FROM {source} "
            f"WHERE {' AND '.join(where)} ORDER BY {order} DESC, e.router_group, e.expert LIMIT ?",
            (*values, limit))
        result = []
        for row in rows:
            keys = row.keys()
            ratio = row["ratio"] if "ratio" in keys else None
            result.append(Found(
                f"{row['router_group']}/{row['expert']}", row["mean"], row["frequency"], row["max"],
                float("inf") if ratio is not None and ratio >= _ONLY_LABEL else ratio,
                row["share"] if "share" in keys else None))
        return result

    def expert(self, expert: str, *, context: int = 16) -> Expert:
        """What the index holds about an expert; one that never fired has a count of 0."""
        group, index = self._key(expert)
        side = self.experts_per_side
        layers = range(group * self._per_router, min(self._layers, (group + 1) * self._per_router))
        row = self._database.execute(
            "SELECT * FROM expert JOIN detail USING (router_group, expert) WHERE router_group = ? AND expert = ?",
            (group, index)).fetchone()
        halves = (index // side, index % side) if side else None
        # Labels of several sets can have the same name.
        names = [f"{kind}/{name}" if len(self.labels) > 1 else name for kind, name in self._label_ids]
        if row is None:
            return Expert(
                expert, halves, tuple(layers), 0.0, 0.0, 0, 0.0, dict.fromkeys(names, 0.0),
                np.zeros(20, dtype=np.uint32), ())
        means = np.frombuffer(row["label_means"], dtype="<f4")
        explanations = [entry[0] for entry in self._database.execute(
            "SELECT text FROM explanation WHERE router_group = ? AND expert = ? ORDER BY sample", (group, index))]
        note, tags = "", []
        if self._has_notes:
            found = self._database.execute(
                "SELECT text FROM note WHERE router_group = ? AND expert = ?", (group, index)).fetchone()
            note = found[0] if found else ""
            tags = [entry[0] for entry in self._database.execute(
                "SELECT tag FROM tag WHERE router_group = ? AND expert = ? ORDER BY tag", (group, index))]
        return Expert(
            expert, halves, tuple(layers), row["mean"], row["frequency"], row["count"], row["max"],
            dict(zip(names, (float(mean) for mean in means))),
            np.frombuffer(row["histogram"], dtype="<u4").copy(),
            tuple(self._context(firing, context) for firing in np.frombuffer(row["activations"], dtype=_FIRING)),
            tuple(explanations), note, tuple(tags))

    def _context(self, firing: np.void, context: int) -> Context:
        document, position = int(firing["document"]), int(firing["position"])
        row = self._database.execute("SELECT tokens FROM document WHERE id = ?", (document,)).fetchone()
        ids = np.frombuffer(row[0], dtype="<u4") if row else np.zeros(0, dtype=np.uint32)
        if position >= len(ids):
            raise IndexFormatError(f"{self.path}: document {document} has no token {position}")
        first = max(0, position - context)
        return Context(
            float(firing["score"]), document, position,
            tuple(self._text(int(token)) for token in ids[first:position + context + 1]), position - first)

    def _text(self, token: int) -> str:
        row = self._database.execute("SELECT text FROM token WHERE id = ?", (token,)).fetchone()
        return str(row[0]) if row else ""
