"""Tickets: a credential's place for one connection. Whoever holds the ticket takes it once, soon, or never.

Redis keeps the credential sealed under a key that the ticket alone holds, and the ticket only as a hash.
"""

import hashlib
import re
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis.exceptions import ResponseError

from domain.errors import Unavailable
from storage.redis import Pipeline

LASTS = 30  # seconds
_NONCE = b"\0" * 12  # each key seals once
_SHAPE = re.compile(r"([A-Za-z0-9_]{1,64})\.[A-Za-z0-9_-]{43}")


class RedisTickets:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def give(self, tenant: str, credential: str) -> str:
        """A ticket for this credential. Raises `Unavailable`."""
        ticket = f"{tenant}.{secrets.token_urlsafe(32)}"
        sealed = AESGCM(_hash("key", ticket)).encrypt(_NONCE, credential.encode(), None)
        await self._ask("SET", _key(tenant, ticket), sealed, "EX", LASTS)
        return ticket

    async def take(self, ticket: str) -> str | None:
        """The credential; None where the ticket does not count, or no more. Raises `Unavailable`."""
        shape = _SHAPE.fullmatch(ticket)
        if shape is None:
            return None
        sealed = await self._ask("GETDEL", _key(shape[1], ticket))
        try:
            return None if sealed is None else AESGCM(_hash("key", ticket)).decrypt(_NONCE, sealed, None).decode()
        except InvalidTag:
            return None

    async def _ask(self, *command: object) -> bytes | None:
        try:
            answer: bytes | None = await self._pipeline.send(*command)
        except ResponseError as error:
            raise Unavailable(str(error)) from error
        return answer


def _hash(purpose: str, ticket: str) -> bytes:
    return hashlib.sha256(f"{purpose}\n{ticket}".encode()).digest()


def _key(tenant: str, ticket: str) -> str:
    return f"brain:{tenant}:ticket:{_hash('name', ticket).hex()}"
