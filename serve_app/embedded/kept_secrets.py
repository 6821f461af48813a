"""The secrets of a data folder that outlive it: those of the service. Servers of a new folder get new ones."""

from collections.abc import Mapping

from serve_app.embedded.folder import DataFolder, write_private
from serve_app.embedded.refusal import Refusal

KEPT = ("api-key", "master-key")


def kept_secrets(folder: DataFolder) -> dict[str, str]:
    """By their names."""
    return {name: folder.secret(name) for name in KEPT if (folder.secrets / name).exists()}


def check(secrets: Mapping[str, str]) -> None:
    """Raises `Refusal` where one of them is none that can be put back."""
    if foreign := sorted(secrets.keys() - set(KEPT)):
        raise Refusal(f"the backup holds secrets that are none of the service's: {', '.join(map(repr, foreign))}")


def put_back(folder: DataFolder, secrets: Mapping[str, str]) -> None:
    """Replace the folder's secrets by these, which were checked. Raises OSError."""
    for name, secret in secrets.items():
        write_private(folder.secrets / name, secret)
