"""The key that seals what the database keeps of secrets: the one that was set, or one that is made once and kept."""

import secrets

from serve_app.embedded.folder import DataFolder
from serve_app.embedded.refusal import Refusal
from serve_app.settings import Settings
from storage.sealing import MasterKeys


def master_key(folder: DataFolder, settings: Settings) -> tuple[MasterKeys, str]:
    """The keys, and their text for the replicas' environment."""
    try:
        if settings.master_key is None and settings.master_key_file is None:
            text = folder.secret("master-key", lambda: secrets.token_hex(32))
            return MasterKeys.parse(text), text
        return settings.master_keys, _text(settings)
    except (OSError, ValueError) as error:
        raise Refusal(f"the master key cannot be used: {error}") from None


def _text(settings: Settings) -> str:
    if settings.master_key_file is not None:
        return settings.master_key_file.read_text().strip()
    return settings.required("master_key")
