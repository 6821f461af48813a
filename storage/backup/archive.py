"""The file of a backup: members of a tar archive, streamed, so that memory does not grow with them."""

import gzip
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, BinaryIO

from storage.backup import Damaged

PIECE = 8 << 20  # bytes of a member, at the most
CHUNK = 1 << 18  # bytes read at once


@contextmanager
def archive(file: BinaryIO) -> Iterator[Callable[[str, bytes], None]]:
    """Write an archive to the file; what is given adds a member by its name and content."""
    with (
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as plain,
        tarfile.open(fileobj=plain, mode="w") as tar,
    ):

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            tar.addfile(member, BytesIO(content))

        yield add


def pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of the largest size."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= PIECE:
            yield bytes(waiting[:PIECE])
            del waiting[:PIECE]
    if waiting:
        yield bytes(waiting)


def members(file: BinaryIO) -> Iterator[tuple[str, IO[bytes]]]:
    """Each member's name and content, to be read before the next is asked for. Ask within `reading`."""
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                raise Damaged(f"{member.name} is no file")
            yield member.name, content
        while plain.read(CHUNK):  # to the end, where the checksum of it all stands
            continue


@contextmanager
def reading() -> Iterator[None]:
    """What a damaged archive raises is `Damaged`."""
    try:
        yield
    except (gzip.BadGzipFile, tarfile.TarError, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise Damaged(str(error) or type(error).__name__) from error
