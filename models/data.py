"""Labelled texts from the forms in which people have them.

A folder in the layout of scikit-learn's ``load_files`` (one sub-folder per label), NDJSON, CSV, or
the 20 newsgroups over the network. NDJSON and CSV need the fields ``text`` and ``label``; a field
``split`` with ``train`` or ``test`` divides them. ``.gz`` and ``.xz`` are read as they are.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from app.domain.errors import DocyardError
from app.domain.text import text_fault

NEWSGROUPS = "20newsgroups"
SUFFIXES = (".ndjson", ".jsonl", ".csv")


class DataInvalid(DocyardError):
    """Training data cannot be used; names the file and the line."""

    code = "data_invalid"


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text; ``split`` is None where the source does not divide itself."""

    text: str
    label: str
    split: str | None = None


def read_examples(source: str) -> list[Example]:
    """Read labelled texts.

    Args:
        source: a folder, a file, or ``20newsgroups`` to fetch these.

    Raises:
        DataInvalid: nothing usable is there; says where.
    """
    if source == NEWSGROUPS:
        return list(_fetch_newsgroups())
    path = Path(source)
    if path.is_dir():
        return list(_read_folder(path))
    if not path.is_file():
        message = f"{path} is neither a file nor a folder"
        raise DataInvalid(message)
    suffix = next((part for part in reversed(path.suffixes) if part in SUFFIXES), None)
    if suffix is None:
        message = f"{path}: expected a folder or a name with {', '.join(SUFFIXES)} (.gz, .xz)"
        raise DataInvalid(message)
    read = _read_csv if suffix == ".csv" else _read_ndjson
    try:
        with _open(path) as stream:
            return list(read(stream, path))
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 ({error.reason}); save it as UTF-8"
        raise DataInvalid(message) from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error, csv.Error) as error:
        message = f"{path}: cannot be read ({error})"
        raise DataInvalid(message) from None


def require_labels(examples: Iterable[Example], *, least: int = 2) -> None:
    """Refuse data from which nothing can be learnt.

    Raises:
        DataInvalid: fewer than two labels, or a label with fewer than ``least`` texts.
    """
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:  # noqa: PLR2004  (a choice needs two)
        message = f"training needs at least two labels, found {sorted(counts) or 'none'}"
        raise DataInvalid(message)
    rare = sorted(label for label, count in counts.items() if count < least)
    if rare:
        message = f"each label needs at least {least} texts; too few for {', '.join(rare[:10])}"
        raise DataInvalid(message)


def _open(path: Path) -> TextIO:
    # Spreadsheets put a byte order mark before the first column's name.
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig", newline="")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_folder(folder: Path) -> Iterator[Example]:
    found = False
    for label in sorted(child for child in folder.iterdir() if child.is_dir()):
        for file in sorted(child for child in label.iterdir() if child.is_file()):
            found = True
            yield Example(file.read_text(encoding="utf-8", errors="replace"), label.name)
    if not found:
        message = f"{folder}: expected one sub-folder per label with a text in each file"
        raise DataInvalid(message)


def _read_ndjson(stream: TextIO, path: Path) -> Iterator[Example]:
    # Split at line feeds only: JSON text may hold other characters that end a line for Python.
    for number, line in enumerate(stream.read().split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"{path}:{number}: not JSON ({error})"
            raise DataInvalid(message) from None
        if not isinstance(row, dict):
            message = f"{path}:{number}: not a JSON object"
            raise DataInvalid(message)
        yield _example(row, path, number)


def _read_csv(stream: TextIO, path: Path) -> Iterator[Example]:
    # Texts may be longer than the 128 KiB that the module takes for a mistake.
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(stream)
    if missing := {"text", "label"} - set(reader.fieldnames or ()):
        message = f"{path}:1: the header has no column {' and no column '.join(sorted(missing))}"
        raise DataInvalid(message)
    for row in reader:
        yield _example(row, path, reader.line_num)


def _example(row: dict[str, object], path: Path, number: int) -> Example:
    text, label, split = row.get("text"), row.get("label"), row.get("split")
    if not isinstance(text, str) or not isinstance(label, str) or not label.strip():
        message = f"{path}:{number}: needs the fields text and label, both strings"
        raise DataInvalid(message)
    if fault := text_fault(label):
        message = f"{path}:{number}: its label {fault}"
        raise DataInvalid(message)
    return Example(text, label, split if isinstance(split, str) else None)


def _fetch_newsgroups() -> Iterator[Example]:
    from sklearn.datasets import fetch_20newsgroups  # noqa: PLC0415  (slow, only for this source)

    for split in ("train", "test"):
        try:
            bunch = fetch_20newsgroups(subset=split)
        except OSError as error:
            message = f"the 20 newsgroups cannot be fetched ({error})"
            raise DataInvalid(message) from None
        for text, target in zip(bunch.data, bunch.target, strict=True):
            yield Example(text, bunch.target_names[target], split)


# As scikit-learn's fetch_20newsgroups(remove=…) does it, so that scores compare.
_QUOTE = re.compile(r"(writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>)")
_HEADER = re.compile(r"[A-Za-z][A-Za-z-]*: ")


def strip_message(text: str) -> str:
    """Return a mail or news message without header, quotes and signature; other text as it is."""
    if not _HEADER.match(text):
        return text
    text = text.partition("\n\n")[2]
    text = "\n".join(line for line in text.split("\n") if not _QUOTE.search(line))
    lines = text.strip().split("\n")
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].strip().strip("-") == "":
            return "\n".join(lines[:index]) if index > 0 else text
    return text
