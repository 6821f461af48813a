"""Opening, prolonging and ending sign-ins: what the routes of passwords and of OAuth have in common."""

import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from domain.errors import Unavailable
from domain.ids import new_id
from domain.tenant import Caller
from domain.user import User
from serve_app.ingress.answers import Answer
from serve_app.ingress.identity import Identity
from serve_app.ingress.parts import Parts
from serve_app.ingress.user_bodies import user_json
from storage.clients import token_hash
from storage.sessions import Rotated, Session

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
_REFRESH = re.compile(r"brt_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


def new_refresh(tenant: str) -> str:
    """A refresh token of 256 random bits, which names its tenant."""
    return f"brt_{tenant.removeprefix('ten_')}_{secrets.token_urlsafe(32)}"


def tenant_of(refresh: str) -> str | None:
    """The tenant that a refresh token names; None for what is none."""
    found = _REFRESH.fullmatch(refresh)
    return None if found is None else f"ten_{found[1]}"


async def opened(identity: Identity, user: User, via: str) -> Answer:
    """Sign a user in. `via`: the key or the client through which."""
    session, refresh = Session(new_id("ses"), user.id), new_refresh(user.tenant_id)
    await identity.sessions.open(user.tenant_id, session, token_hash(refresh))
    tokens = granted(identity, user.tenant_id, user.id, user.role, session, refresh, via)
    return Answer({**tokens, "user": user_json(user)}, headers=NO_STORE)


def granted(
    identity: Identity,
    tenant: str,
    subject: str,
    role: str,
    session: Session | None = None,
    refresh: str | None = None,
    via: str | None = None,
    scopes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Tokens as RFC 6749, section 5.1, has them."""
    narrowed = scopes if session is None else session.scopes
    session_id = None if session is None else session.id
    token, _ = identity.tokens.issue(tenant, subject, role, narrowed, session_id, via)
    found: dict[str, Any] = {"access_token": token}
    if refresh is not None:
        found["refresh_token"] = refresh
    found |= {"token_type": "Bearer", "expires_in": int(identity.tokens.lifetime)}
    return found if narrowed is None else {**found, "scope": " ".join(narrowed)}


async def rotated(
    parts: Parts, identity: Identity, refresh: str, client_id: str | None = None
) -> tuple[str, Session, str] | None:
    """The tenant, the session and the next refresh token; None where this one does not count. One that was used before
    ends its session: whoever holds the newer one may have stolen it (RFC 9700, section 4.14.2)."""
    tenant = tenant_of(refresh)
    if tenant is None:
        return None
    following = new_refresh(tenant)
    found: Rotated = await identity.sessions.rotate(tenant, token_hash(refresh), token_hash(following), client_id)
    if found.outcome == "reused" and found.session is not None:
        await ended(parts, identity, tenant, [found.session.id])
    if found.outcome != "rotated" or found.session is None:
        return None
    return tenant, found.session, following


async def ended(parts: Parts, identity: Identity, tenant: str, ids: Sequence[str]) -> None:
    """What was ended in Postgres counts no more here at once, and elsewhere within a second."""
    await identity.callers.revocations.tell(tenant, ids)
    await changed(parts)


async def sign_out(parts: Parts, identity: Identity, who: Caller) -> None:
    """End the session and the token of a caller."""
    left = (who.expires_at or 0) - time.time()
    await identity.sessions.end(who.tenant, who.session, who.token, left)
    await ended(parts, identity, who.tenant, [one for one in (who.session, who.token) if one is not None])


async def changed(parts: Parts) -> None:
    """What changed of access counts here at once, as far as the database answers: the change itself stands."""
    if parts.watch is not None:
        with suppress(Unavailable):
            await parts.watch.refresh()
