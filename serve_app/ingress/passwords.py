"""Passwords: argon2id with the parameters of OWASP, in threads, a few at a time; what a new one must not be.

OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane. OWASP ASVS 5.0, 6.2: at least 8 characters, no rule of
composition, taken as they are, and none of the common ones.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from domain.errors import Overloaded
from domain.permissions import GIVEN
from domain.user import email_key
from serve_app.ingress.errors import Problem

T = TypeVar("T")
SHORTEST, LONGEST = 8, 1024  # characters
WORDS = ("brain", "thebrain", "chat", "chatbrain", *GIVEN)  # of no use as a password here (ASVS 5.0, 6.1.2)
AT_ONCE, WAITING = 4, 64
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1


class Passwords:
    """At most `at_once` are worked on at a time, each in 19 MiB. Raises `Overloaded` where `waiting` more wait."""

    def __init__(
        self,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        memory_kib: int = MEMORY_KIB,
        passes: int = PASSES,
        lanes: int = LANES,
    ) -> None:
        self._hasher = PasswordHasher(passes, memory_kib, lanes, type=Type.ID)
        self._places, self._most = asyncio.Semaphore(at_once), at_once + waiting
        self._inside = 0
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        return await self._apart(lambda: self._hasher.hash(password))

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether it is the password of this hash. Without a hash the same work is done for nothing, so that the time
        of an answer does not tell whether there is such a user."""
        return await self._apart(lambda: self._matches(password, stored))

    def outdated(self, stored: str) -> bool:
        """Whether a hash was made with other parameters than new ones."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, password: str, stored: str | None) -> bool:
        if self._nobodys is None:
            self._nobodys = self._hasher.hash("nobody's")
        try:
            return self._hasher.verify(self._nobodys if stored is None else stored, password) and stored is not None
        except (VerificationError, InvalidHashError):
            return False

    async def _apart(self, work: Callable[[], T]) -> T:
        if self._inside >= self._most:
            raise Overloaded("too many people are signing in")
        self._inside += 1
        try:
            async with self._places:
                return await asyncio.to_thread(work)
        finally:
            self._inside -= 1


async def check_new(password: str, email: str, name: str | None = None, param: str = "password") -> None:
    """Raises `Problem` 422 where nobody should have this password. Its length was checked before."""
    plain = password.casefold()
    if _made_of(plain, email_key(email), (name or "").casefold()):
        words = "must not be made of the e-mail address, the name, the service's name or a role"
        raise Problem(422, f"{param}: {words} alone", param, "weak_password")
    if plain in await asyncio.to_thread(common):
        raise Problem(422, f"{param}: is among the most common passwords", param, "weak_password")


def _made_of(password: str, email: str, name: str) -> bool:
    """Whether its letters are those of a word that everybody can guess here, once or again and again."""
    local, _, host = email.partition("@")
    words = {email, local, host, host.partition(".")[0], name, *name.split(), *WORDS}
    letters = _letters(password)
    return password == email or any(
        len(word) >= 3 and letters and not letters.replace(word, "") for word in map(_letters, words)
    )


def _letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isalpha())


@cache
def common() -> frozenset[str]:
    """The 11,611 of zxcvbn's 30,000 most common passwords that are long enough to be chosen here."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # takes a moment, and is seldom needed

    return frozenset(word.casefold() for word in FREQUENCY_LISTS["passwords"] if len(word) >= SHORTEST)
