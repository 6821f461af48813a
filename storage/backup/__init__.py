"""One file with all that the database keeps of a Brain: made while the service runs, and put back as a whole.

A tar archive, compressed by gzip: `tables/NAME/NNNNNN`, the rows of each table as `COPY` writes them, cut into pieces;
`secrets/NAME`; and `manifest.json` at its end, without which a backup is none.
"""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, how much of it all is, and how much there is (0: ?)


class BackupRefused(Exception):
    """There can be no backup of this database, or this one cannot be put back here; the message says why."""


class Damaged(BackupRefused):
    """The file is not what was once written, or no backup at all."""


def silent(what: str, done: int, total: int) -> None:
    """The progress that nobody looks at."""
