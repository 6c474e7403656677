"""The corpus that ships with the project: sources in the public domain or under permissive licences."""
from collections.abc import Iterator

import code_sources
import reference_sources

PACKAGES = [
    "wordnet-base", "jargon-text", "bible-kjv", "bible-kjv-text", "libpython3.11-stdlib", "libpython3.11-minimal",
    "libboost1.74-dev", "luarocks", "lua-penlight",
]

# Labels of the shipped corpus, and the lexicographer file that each comes from.
WORDNET_LABELS = {
    "animals": "noun.animal", "plants": "noun.plant", "food": "noun.food", "body": "noun.body",
    "artifacts": "noun.artifact", "people": "noun.person", "substances": "noun.substance",
    "places": "noun.location",
}
KILOBYTES = {
    "animals": 600, "plants": 600, "scripture": 600, "hackerdom": 500, "python": 400, "artifacts": 400, "people": 400,
}


def limit(label: str, megabytes: float) -> float:
    """Bytes that a label may have."""
    return KILOBYTES.get(label, 300) * 1e3


def labelled_documents(folders: dict[str, str]) -> Iterator[tuple[str, Iterator[str] | list[str]]]:
    """Labels with their documents."""
    synsets = reference_sources.wordnet(folders)
    for label, name in WORDNET_LABELS.items():
        yield label, synsets[name]
    yield "scripture", reference_sources.king_james(folders)
    yield "hackerdom", reference_sources.jargon_file(folders)
    yield "python", short_files(folders, ["libpython3.11-stdlib", "libpython3.11-minimal"], (".py",))
    yield "cpp", short_files(folders, ["libboost1.74-dev"], (".hpp",))
    yield "lua", short_files(folders, ["luarocks", "lua-penlight"], (".lua",))


def short_files(folders: dict[str, str], names: list[str], endings: tuple[str, ...]) -> Iterator[str]:
    """Source files of at most 20 kB, so that a few hundred kilobytes hold many; with their copyright notices."""
    for text in code_sources.source_files([folders[name] for name in names], endings, keeps_licence=True):
        if len(text) <= 20_000:
            yield text
