"""The secrets of a data folder that outlive it: those of the service. Servers of a new folder get new ones."""

import re
from collections.abc import Mapping

from serve_app.embedded.folder import DataFolder, write_private
from serve_app.embedded.refusal import Refusal

OF_SERVERS = re.compile(r"postgres-.*|redis|ray-token")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def kept_secrets(folder: DataFolder) -> dict[str, str]:
    """By their names."""
    names = sorted(path.name for path in folder.secrets.iterdir())
    return {name: folder.secret(name) for name in names if _is_kept(name)}


def put_back(folder: DataFolder, secrets: Mapping[str, str]) -> None:
    """Replace the folder's secrets by these."""
    for name, secret in secrets.items():
        if not _is_kept(name):
            raise Refusal(f"the backup holds a secret that is none of the service's: {name!r}")
        write_private(folder.secrets / name, secret)


def _is_kept(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and OF_SERVERS.fullmatch(name) is None
