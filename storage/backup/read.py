"""Reads a backup: first the whole of it, so that nothing is begun with a damaged one."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO

from storage.backup import Damaged, Progress, manifest, silent
from storage.backup.archive import CHUNK, members, reading
from storage.backup.manifest import Manifest, Table

MOST = 64 << 20  # bytes of a manifest or a secret


class _Content:
    """What was read of a table so far."""

    def __init__(self) -> None:
        self.rows = self.bytes = self.pieces = 0
        self._digest = sha256()

    def take(self, chunk: bytes) -> bytes:
        self.rows += chunk.count(b"\n")
        self.bytes += len(chunk)
        self._digest.update(chunk)
        return chunk

    def is_of(self, table: Table) -> bool:
        return (self.rows, self.bytes, self.pieces, self._digest.hexdigest()) == (
            table.rows,
            table.bytes,
            table.pieces,
            table.sha256,
        )


class Backup:
    """A backup that was whole when it was opened, and its secrets by their names."""

    def __init__(self, file: BinaryIO, manifest: Manifest, secrets: dict[str, str]) -> None:
        self._file, self.manifest, self.secrets = file, manifest, secrets

    def tables(self) -> Iterator[tuple[Table, Iterator[bytes]]]:
        """Each table and its rows, to be read to their end before the next is asked for.

        Raises `Damaged` where the file is no longer what it was.
        """
        found = members(self._file)
        for table in self.manifest.tables:
            yield table, self._rows(found, table)

    def _rows(self, found: Iterator[tuple[str, IO[bytes]]], table: Table) -> Iterator[bytes]:
        content = _Content()
        with reading():
            for content.pieces in range(1, table.pieces + 1):
                name, piece = next(found, ("", None))
                if piece is None or name != f"tables/{table.name}/{content.pieces:06}":
                    raise Damaged("it was changed while it was read")
                while chunk := piece.read(CHUNK):
                    yield content.take(chunk)
        if not content.is_of(table):
            raise Damaged("it was changed while it was read")


@contextmanager
def open_backup(path: Path, progress: Progress = silent) -> Iterator[Backup]:
    """Read all of the file, then give it to be read again. Raises `Damaged`, `BackupRefused` and OSError."""
    with path.open("rb") as file:
        total = path.stat().st_size
        text, contents, secrets = b"", dict[str, _Content](), dict[str, str]()
        with reading():
            for name, content in members(file):
                progress("verifying", file.tell(), total)
                folder, _, rest = name.partition("/")
                if text:
                    raise Damaged(f"{name} stands after its end")
                if name == manifest.NAME:
                    text = content.read(MOST)
                elif folder == "secrets":
                    secrets[rest] = content.read(MOST).decode()
                else:
                    table, _, number = rest.partition("/")
                    _read_piece(contents.setdefault(table, _Content()), name, number, content)
        if not text:
            raise Damaged("its end is missing")
        found = manifest.read(text)
        _check(found, contents, secrets)
        yield Backup(file, found, secrets)


def _read_piece(content: _Content, name: str, number: str, piece: IO[bytes]) -> None:
    content.pieces += 1
    if number != f"{content.pieces:06}":
        raise Damaged(f"{name} stands in the wrong place")
    while chunk := piece.read(CHUNK):
        content.take(chunk)


def _check(found: Manifest, contents: dict[str, _Content], secrets: dict[str, str]) -> None:
    for table in found.tables:
        if not contents.pop(table.name, _Content()).is_of(table):
            raise Damaged(f"the rows of {table.name} are not those that were written")
    if contents:
        raise Damaged(f"nothing is said of {', '.join(contents)}")
    if {name: sha256(secret.encode()).hexdigest() for name, secret in secrets.items()} != found.secrets:
        raise Damaged("its secrets are not those that were written")
