"""Secrets that a run of the tests used, looked for in all that the service wrote while it ran.

`python -m tests.secrets_scan FOLDER… --canary NAME=VALUE…`, or `scan` from a test. A secret is found as it is, and as
it would stand in a URL, in JSON, in base64 or in hexadecimal.
"""

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SHORTEST = 8  # characters: a shorter secret would be found in any text
PIECE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Found:
    """`line`: of the file, from 1; the text of it is not told."""

    name: str
    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} holds {self.name}"


def scan(folders: Iterable[Path], canaries: Mapping[str, str], spared: Iterable[Path] = ()) -> list[Found]:
    """Where a canary stands in a file below `folders`, which are read as bytes. `spared`: files and folders that may
    hold them. Raises ValueError for a canary too short to be told from other text."""
    spared = [path.resolve() for path in spared]
    forms = _forms(canaries)
    return [
        found
        for folder in folders
        for path in _files(folder)
        if not any(path.resolve().is_relative_to(one) for one in spared)
        for found in _in(path, forms)
    ]


def _forms(canaries: Mapping[str, str]) -> list[tuple[str, bytes]]:
    forms: dict[bytes, str] = {}
    for name, value in canaries.items():
        if len(value) < SHORTEST:
            raise ValueError(f"{name} has fewer than {SHORTEST} characters")
        raw = value.encode()
        forms[raw] = name
        forms[quote(value, safe="").encode()] = f"{name} (in a URL)"
        forms[json.dumps(value)[1:-1].encode()] = f"{name} (in JSON)"
        forms[raw.hex().encode()] = f"{name} (in hexadecimal)"
        for offset in range(3):  # wherever it begins in what was encoded
            encoded = base64.b64encode(b"\0" * offset + raw)
            forms[encoded[offset + 1 if offset else 0 : len(encoded) - 4]] = f"{name} (in base64)"
        forms[raw] = name
    return [(name, form) for form, name in forms.items()]


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _in(path: Path, forms: Sequence[tuple[str, bytes]]) -> Iterator[Found]:
    overlap = max(len(form) for _, form in forms) - 1
    seen: set[tuple[str, int]] = set()
    before, line = b"", 1
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                text = before + piece
                for name, form in forms:
                    at = text.find(form)
                    while at >= 0:
                        where = (name, line + text.count(b"\n", 0, at))
                        if where not in seen:
                            seen.add(where)
                            yield Found(name, path, where[1])
                        at = text.find(form, at + 1)
                line += text.count(b"\n", 0, len(text) - overlap) if len(text) > overlap else 0
                before = text[-overlap:] if overlap else b""
    except OSError:
        return  # a socket, or gone meanwhile


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--canary", action="append", required=True, metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    found = scan(given.folders, dict(one.split("=", 1) for one in given.canary))
    for one in found:
        print(one)
    print(f"{len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
