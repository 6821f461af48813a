"""What a backup says of itself."""

from datetime import datetime

import orjson
from pydantic import BaseModel, ValidationError

from storage.backup import BackupRefused, Damaged

NAME = "manifest.json"
FORMAT = 1


class Table(BaseModel):
    """`sha256`: of the rows' text, `bytes` long, over all `pieces`."""

    name: str
    columns: list[str]
    rows: int
    bytes: int
    pieces: int
    sha256: str


class Sequence(BaseModel):
    """`called`: whether `last` was given out already."""

    name: str
    last: int
    called: bool


class Manifest(BaseModel):
    """`revision`: of the schema; `brain`: the version of the code that wrote the file; `secrets`: SHA-256 by name.

    Tables stand in an order in which each can be filled after those that it refers to.
    """

    format: int = FORMAT
    revision: str
    brain: str
    at: datetime
    tables: list[Table]
    sequences: list[Sequence]
    secrets: dict[str, str]

    @property
    def bytes(self) -> int:
        return sum(table.bytes for table in self.tables)

    def rows(self, table: str) -> int:
        """How many there are of a table; none of one that is not in it."""
        return next((found.rows for found in self.tables if found.name == table), 0)


def read(text: bytes) -> Manifest:
    """Raises `Damaged`, and `BackupRefused` where a later version made the file."""
    try:
        found = orjson.loads(text)
        if found["format"] > FORMAT:
            raise BackupRefused(
                f"the backup has format {found['format']}, which Brain {found['brain']} wrote; this one reads {FORMAT}"
            )
        return Manifest.model_validate(found)
    except (orjson.JSONDecodeError, ValidationError, KeyError, TypeError) as error:
        raise Damaged(f"its {NAME} cannot be read") from error
