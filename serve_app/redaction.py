"""No secret in a log, whoever writes it: keys, tokens and passwords by their look, this process's own by their value.

Masked where records are made, so it holds for each logger of the process and each handler, also those of libraries; and
once more where a line is written.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from serve_app.settings import Settings

MASK = "***"
SHORTEST = 6  # characters: what is shorter is in too many words
_WORD = r"[A-Za-z0-9_\-.~+/=*%]"
_LOOKS = (
    (re.compile(r"\bbrain_[A-Za-z0-9_-]{32,}"), MASK),
    (re.compile(r"\b(?:sk|pk|rk)[-_][\w*-]{8,}"), MASK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*"), MASK),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://[^\s/:@\"']*):[^\s@/\"']+@", re.IGNORECASE), rf"\1:{MASK}@"),
    (re.compile(rf"\b(bearer|basic)(\s+){_WORD}{{6,}}", re.IGNORECASE), rf"\1\2{MASK}"),
    (
        re.compile(
            r"\b(authorization|x-api-key|api[_-]?key|passw(?:or)?d|client_secret|secret|(?:access_|refresh_|id_)?token)"
            rf"(\\?[\"']?\s*[:=]\s*+(?:b(?=[\"']))?\\?[\"']?)(?!(?:bearer|basic)\b|{re.escape(MASK)}){_WORD}{{4,}}",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
)
_HINTS = ("brain_", "sk", "pk", "rk", "eyj", "://", "bearer", "basic", "auth", "key", "pass", "secret", "token")
"""Of which a text that any of `_LOOKS` finds something in holds one: most lines hold none."""


class Known:
    """Secrets that this process has: they are masked wherever they stand, whatever they look like."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str | None]) -> None:
        forms = {form for secret in secrets if secret and len(secret) >= SHORTEST for form in _forms(secret)}
        if forms <= self._values:
            return
        self._values |= forms
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def masked(self, text: str) -> str:
        if self._pattern is not None and any(value in text for value in self._values):
            text = self._pattern.sub(MASK, text)
        low = text.lower()
        if any(hint in low for hint in _HINTS):
            for pattern, mask in _LOOKS:
                text = pattern.sub(mask, text)
        return text


KNOWN = Known()
"""The process's: logging is the process's, too."""


def secrets_of(settings: Settings) -> list[str]:
    """All that the settings keep secret, and the passwords in their addresses."""
    found = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            found += [text, *(part.strip() for part in text.split(","))]
            found += _password(text)
    if settings.master_key_file is not None:
        with suppress(OSError):  # whoever needs it says so
            found += [part.strip() for part in settings.master_key_file.read_text().split(",")]
    return [text for text in found if text]


def install() -> None:
    """From now on no record, warning or uncaught error of this process shows a secret. Again: nothing happens."""
    if isinstance(logging.getLogRecordFactory(), _Masking):
        return
    logging.setLogRecordFactory(_Masking(logging.getLogRecordFactory()))
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)


class _Masking:
    """Makes the records that `make` makes, without secrets in their words and their traceback."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self.make(*args, **kwargs)
        try:
            words = record.getMessage()
        except Exception:  # wrong arguments: the handler says so, and shows them
            words, record.msg, record.args = "", KNOWN.masked(f"{record.msg} {record.args!r}"), ()
        if (masked := KNOWN.masked(words)) != words:
            record.msg, record.args = masked, ()
        error = record.exc_info
        if error and error[0] is not None:
            text = "".join(traceback.format_exception(*error)).rstrip("\n")
            if (shown := KNOWN.masked(text)) != text:
                record.exc_info, record.exc_text = None, shown
                record.error_type = error[0].__name__
        return record


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if sys.stderr is not None:
        sys.stderr.write(KNOWN.masked("".join(traceback.format_exception(kind, error, trace))))


def _forms(secret: str) -> set[str]:
    """A secret as it is, in a JSON text, in an address, and as `repr` shows it."""
    return {secret, json.dumps(secret)[1:-1], quote(secret, safe=""), repr(secret)[1:-1]}


def _password(text: str) -> list[str]:
    try:
        password = urlsplit(text).password if "://" in text else None
    except ValueError:
        password = None
    return [password] if password else []
