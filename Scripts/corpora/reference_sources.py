"""Reference prose by domain."""
import glob
import gzip
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator

PACKAGES = [
    "wordnet-base", "dict-foldoc", "jargon-text", "dict-gcide", "bible-kjv", "bible-kjv-text", "python3.11-doc",
    "perl-doc",
]


def limit(label: str, megabytes: float) -> float:
    """Bytes that a label may have."""
    return megabytes * 1e6


def labelled_documents(folders: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Labels with their documents."""
    yield from sorted(wordnet(folders).items())
    yield "scripture", king_james(folders)
    yield "hackerdom", jargon_file(folders)
    yield "computing", foldoc(folders)
    yield from sorted(gcide(folders).items())
    yield "python-documentation", python_documentation(folders)
    yield "perl-documentation", perl_documentation(folders)


# WordNet's lexicographer files by number (lexnames(5WN)).
LEXICOGRAPHER_FILES = [
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute",
    "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group",
    "noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant", "noun.possession",
    "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition", "verb.consumption",
    "verb.contact", "verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession",
    "verb.social", "verb.stative", "verb.weather", "adj.ppl",
]


def wordnet(folders: dict[str, str]) -> dict[str, list[str]]:
    """One document a synset, by lexicographer file: its words, their gloss, the kinds above it."""
    folder = os.path.join(folders["wordnet-base"], "usr/share/wordnet")
    result = defaultdict(list)
    for part in ["noun", "verb", "adj", "adv"]:
        synsets = {}
        with open(os.path.join(folder, "data." + part), encoding="utf-8") as file:
            for line in file:
                if line.startswith("  "):
                    continue
                data, _, gloss = line.partition(" | ")
                fields = data.split()
                count = int(fields[3], 16)
                words = [re.sub(r"\(.*\)$", "", fields[4 + 2 * n]).replace("_", " ") for n in range(count)]
                pointers = fields[5 + 2 * count:]
                above = [pointers[n + 1] for n in range(0, len(pointers) - 3, 4) if pointers[n] in ("@", "@i")]
                synsets[fields[0]] = (int(fields[1]), words, above, gloss.strip())
        for number, words, above, gloss in synsets.values():
            text = f"{', '.join(words)}: {gloss}."
            kinds = [synsets[offset][1][0] for offset in above if offset in synsets]
            if kinds:
                text += f" A kind of {' and '.join(kinds)}."
            result[LEXICOGRAPHER_FILES[number]].append(text)
    return result


VERSE = re.compile(r"^([1-3]?[A-Za-z]+)(\d+):(\d+) (.*)$")


def king_james(folders: dict[str, str]) -> list[str]:
    """One document a chapter."""
    program = os.path.join(folders["bible-kjv"], "usr/bin/bible")
    data = os.path.join(folders["bible-kjv-text"], "usr/lib")
    lines = subprocess.run(
        [program, "-f", "-p", data, "gen1:1-rev22:21"], check=True, capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "100000"}).stdout
    chapters = {}
    for line in lines.splitlines():
        match = VERSE.match(line)
        if match:
            book, chapter, verse, text = match.groups()
            chapters.setdefault((book, chapter), []).append(f"{verse} {text}")
    return ["\n".join(verses) for verses in chapters.values()]


def jargon_file(folders: dict[str, str]) -> list[str]:
    """One document an entry."""
    path = os.path.join(folders["jargon-text"], "usr/share/doc/jargon-text/jargon.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        text = file.read()
    start = re.search(r"^ *:\(TM\):|^ *:0:|^ {3}:abbrev:", text, re.MULTILINE)
    entries = re.split(r"^ {3}(?=:\S[^\n]*?:)", text[start.start() if start else 0:], flags=re.MULTILINE)
    documents = []
    for entry in entries:
        match = re.match(r":(.+?): *(.*)", entry, re.DOTALL)
        if match:
            documents.append(f"{match.group(1)}: {unwrapped(match.group(2))}")
    return documents


def unwrapped(text: str) -> str:
    """Paragraphs without line breaks, cross references without braces."""
    paragraphs = re.split(r"\n\s*\n", re.sub(r"[{}]", "", text))
    return "\n".join(filter(None, (" ".join(paragraph.split()) for paragraph in paragraphs)))


def dictionary_entries(path: str) -> Iterator[str]:
    """Entries of a dictd file: a line at the margin starts one, unless it follows another such line."""
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    entry, previous_blank = [], True
    for line in lines:
        if line[:1].strip() and previous_blank and entry:
            yield "\n".join(entry)
            entry = []
        entry.append(line)
        previous_blank = not line.strip()
    yield "\n".join(entry)


def foldoc(folders: dict[str, str]) -> list[str]:
    """One document an entry of the Free On-line Dictionary of Computing."""
    documents = []
    for entry in dictionary_entries(os.path.join(folders["dict-foldoc"], "usr/share/dictd/foldoc.dict.dz")):
        if entry.startswith("00-database") or len(entry) < 40:
            continue
        head, _, body = entry.partition("\n")
        body = re.sub(r"\n\s*\(\d{4}-\d\d-\d\d\)\s*$", "", body.rstrip())
        documents.append(f"{head.strip()}: {unwrapped(body)}")
    return documents


# GCIDE's abbreviations of fields, and the label that each gives.
FIELDS = {
    "Zool": "zoology", 'Zo["o]l': "zoology", "Bot": "botany", "Chem": "chemistry", "Med": "medicine",
    "Anat": "anatomy", "Naut": "seafaring", "Law": "law", "Min": "mineralogy", "Biol": "biology", "Mus": "music",
    "Arch": "architecture", "Mil": "military", "Physiol": "physiology", "Math": "mathematics",
    "Physics": "physics", "Astron": "astronomy", "Geol": "geology", "Mach": "machinery", "Geom": "mathematics",
    "Her": "heraldry", "Mining": "mining", "Elec": "electricity", "Gram": "grammar", "Eccl": "church",
    "Mech": "machinery", "Paleon": "paleontology", "Surg": "medicine", "Print": "printing", "Com": "commerce",
    "Theol": "church", "Alg": "mathematics", "Logic": "logic", "Cookery": "cooking", "Metal": "metallurgy",
}
FIELD = re.compile(r"\((" + "|".join(re.escape(name) for name in FIELDS) + r")\.?\)")


def gcide(folders: dict[str, str]) -> dict[str, list[str]]:
    """One document an entry, labelled by the first field that it names; `dictionary` without one."""
    result = defaultdict(list)
    for entry in dictionary_entries(os.path.join(folders["dict-gcide"], "usr/share/dictd/gcide.dict.dz")):
        if entry.startswith("00-database"):
            continue
        match = FIELD.search(entry)
        label = FIELDS[match.group(1)] if match else "dictionary"
        # Sources in brackets, pronunciations between backslashes.
        text = re.sub(r"\[[^\]\n]*(?:Webster|WordNet|PJC|Suppl|Century)[^\]]*\]", "", entry)
        text = unwrapped(re.sub(r"\s*\\[^\\]{1,120}\\", "", text))
        if len(text) > 40:
            result[label].append(text)
    return result


def python_documentation(folders: dict[str, str]) -> list[str]:
    """One document a page, as reStructuredText."""
    pattern = os.path.join(folders["python3.11-doc"], "usr/share/doc/python3.11/html/_sources/**/*.rst.txt")
    return [read_text(path) for path in sorted(glob.glob(pattern, recursive=True))]


def perl_documentation(folders: dict[str, str]) -> list[str]:
    """One document a page, as POD."""
    pattern = os.path.join(folders["perl-doc"], "usr/share/perl/**/*.pod")
    return [read_text(path) for path in sorted(glob.glob(pattern, recursive=True))]


def read_text(path: str) -> str:
    """A file's text; what is not UTF-8 is taken as Latin-1, as Perl's older pages are."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
