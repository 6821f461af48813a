"""The operator's API key: the one that was set, or one that is made once and kept."""

import secrets

from serve_app.embedded.folder import DataFolder
from serve_app.embedded.refusal import Refusal
from serve_app.embedded.reporter import Reporter

SHORTEST = 20  # characters
KNOWN = (
    "changeme",
    "secret",
    "password",
    "test",
    "example",
    "admin",
    "letmein",
    "default",
    "apikey",
    "brain",
    "qwerty",
)


def operator_key(folder: DataFolder, given: str | None, public: bool, reporter: Reporter) -> str:
    """The key of this start. A weak one is refused where the API is `public` (not only on loopback)."""
    if given is None:
        return folder.secret("api-key", lambda: f"brain_{secrets.token_urlsafe(32)}")
    if is_weak(given):
        if public:
            raise Refusal(
                "BRAIN_API_KEY is easy to guess and --host is not loopback: use a key of 32 random characters or more"
                " (or none: one is made)"
            )
        reporter.line("warning: BRAIN_API_KEY is easy to guess; use it on this machine only")
    return given


def is_weak(key: str) -> bool:
    """Short, or a known word with decoration, or few different characters."""
    letters = "".join(character for character in key.lower() if character.isalpha())
    stripped = letters
    for word in KNOWN:
        stripped = stripped.replace(word, "")
    return len(key) < SHORTEST or len(set(key)) < 8 or (bool(letters) and len(stripped) < len(letters) / 3)
