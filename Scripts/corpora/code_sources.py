"""Source files by programming language."""
import os
import re
import zipfile
from collections.abc import Iterator

LANGUAGES = {
    "python": (["libpython3.11-stdlib", "libpython3.11-minimal", "python3-django"], (".py",)),
    "cpp": (["libstdc++-12-dev", "libeigen3-dev", "libboost1.74-dev"], (".h", ".hpp", ".ipp", ".tcc", ".inl", "")),
    "java": (["openjdk-17-source"], (".java",)),
    "javascript": (["webpack", "eslint", "node-babel7", "libjs-three", "wordpress", "phpmyadmin"], (".js", ".mjs")),
    "lua": (
        ["nmap-common", "prosody", "awesome", "minetest-data", "luarocks", "lua-penlight", "neovim-runtime"],
        (".lua", ".nse")),
    "php": (["wordpress", "phpmyadmin", "dokuwiki", "roundcube-core", "phpunit"], (".php",)),
}
PACKAGES = sorted({package for packages, _ in LANGUAGES.values() for package in packages})

# Generated tables and data say nothing about a language.
LARGEST_FILE = 200_000


def limit(label: str, megabytes: float) -> float:
    """Bytes that a label may have."""
    return megabytes * 1e6


def labelled_documents(folders: dict[str, str]) -> Iterator[tuple[str, Iterator[str]]]:
    """Languages with their files' texts."""
    for language in sorted(LANGUAGES):
        names, endings = LANGUAGES[language]
        yield language, source_files([folders[name] for name in names], endings)


def source_files(folders: list[str], endings: tuple[str, ...], keeps_licence: bool = False) -> Iterator[str]:
    """Texts of the files with one of the endings, as a rule without the licence at their head."""
    for folder in folders:
        for parent, children, names in os.walk(folder):
            children.sort()
            for name in sorted(names):
                path = os.path.join(parent, name)
                if name == "src.zip":
                    yield from archived_files(path, endings, keeps_licence)
                elif os.path.splitext(name)[1] in endings and is_source(path):
                    with open(path, "rb") as file:
                        yield from source_text(file.read(), keeps_licence)


def is_source(path: str) -> bool:
    """Whether a file holds source written by people; files without an ending do in C++'s include folders."""
    if os.path.islink(path) or path.endswith(".min.js") or not os.path.isfile(path):
        return False
    return os.path.splitext(path)[1] != "" or "/include/" in path


def archived_files(path: str, endings: tuple[str, ...], keeps_licence: bool) -> Iterator[str]:
    """Texts of an archive's files."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(endings):
                yield from source_text(archive.read(name), keeps_licence)


def source_text(data: bytes, keeps_licence: bool) -> Iterator[str]:
    """A file's text, or nothing for one that is large, not UTF-8 or packed into long lines."""
    if not 200 <= len(data) <= LARGEST_FILE:
        return
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return
    if "\0" in text or max(map(len, text.split("\n"))) > 1000:
        return
    if not keeps_licence:
        text = without_licence(text)
    if len(text) >= 200:
        yield text


LEADING_COMMENT = re.compile(r"\s*(?:/\*.*?\*/|(?:(?://|#(?!include|ifndef|define|pragma|!)|--)[^\n]*\n)+)", re.DOTALL)


def without_licence(text: str) -> str:
    """The text without comments at its head that state a copyright: they repeat in every file."""
    opening = re.match(r"<\?php\s*|#![^\n]*\n", text)
    head = opening.group(0) if opening else ""
    rest = text[len(head):]
    while True:
        match = LEADING_COMMENT.match(rest)
        if not match or not re.search(r"copyright|licen[cs]e|\(c\)", match.group(0), re.IGNORECASE):
            return head + rest.lstrip("\n")
        rest = rest[match.end():]
