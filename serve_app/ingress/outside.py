"""Access tokens of outside OpenID providers, by configuration: who issues them, by which keys, and whom they name here.

Keys come from the file, or from the provider's address at the start and again in the background. A token never causes a
look at an address: one whose key is not known yet is refused until the next look.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import jwt
import orjson
import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from domain.ids import is_id
from domain.permissions import OPERATOR
from serve_app.ingress.tokens import AHEAD, header_of, is_number

log = logging.getLogger("brain.access")

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LARGEST = 512 * 1024  # bytes of a provider's key set
PATIENCE = 10.0  # seconds for it
SMALLEST = 2048  # bits of an RSA key
AGAIN = 5.0  # seconds until a look that failed at the start is taken again
_REQUIRED = ["iss", "aud", "sub", "exp", "iat"]
_LOOPBACK = ("http://127.0.0.1:", "http://[::1]:", "http://localhost:")


class Provider(BaseModel):
    """One issuer. `tenant`, or `tenant_claim` with `tenants` (the claim's value → tenant id; without it the value is
    one). `roles_claim`: a claim, dots reaching into it, whose values `roles` turns into roles here, the first entry
    that fits; without a fit `default_role`, or nobody. `scope_claim`: a claim whose words narrow the role."""

    model_config = ConfigDict(extra="forbid")

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks_url: str | None = None
    jwks: dict[str, Any] | None = None
    algorithms: list[Algorithm] = Field(["RS256", "ES256", "EdDSA"], min_length=1)
    types: list[str] = ["at+jwt", "JWT"]
    tenant: str | None = None
    tenant_claim: str | None = None
    tenants: dict[str, str] | None = None
    roles_claim: str | None = None
    roles: dict[str, str] = {}
    default_role: str | None = None
    scope_claim: str | None = None
    refresh_s: float = Field(300, ge=10)

    @model_validator(mode="after")
    def _whole(self) -> "Provider":
        if (self.jwks_url is None) == (self.jwks is None):
            raise ValueError("give either jwks_url or jwks")
        if self.jwks_url is not None and not self.jwks_url.startswith(("https://", *_LOOPBACK)):
            raise ValueError("jwks_url: must begin with https://")
        if (self.tenant is None) == (self.tenant_claim is None):
            raise ValueError("give either tenant or tenant_claim")
        for tenant in (*([self.tenant] if self.tenant else []), *(self.tenants or {}).values()):
            if not is_id(tenant, "ten"):
                raise ValueError(f"{tenant!r} is no tenant's id")
        if OPERATOR in (*self.roles.values(), self.default_role):
            raise ValueError("nobody gives the operator's role")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    providers: list[Provider]


@dataclass(frozen=True, slots=True)
class Named:
    """Whom a verified token names. `user`: the id of that user here, the same for each token of that subject."""

    tenant: str
    issuer: str
    subject: str
    token: str
    user: str
    email: str
    name: str | None
    role: str
    scopes: tuple[str, ...] | None
    issued_at: float
    expires_at: float


@dataclass(slots=True)
class _Issuer:
    provider: Provider
    keys: Mapping[str | None, jwt.PyJWK] = field(default_factory=dict)


def read_providers(path: Path) -> list[Provider]:
    """The providers of a YAML or JSON file. Raises ValueError naming what is wrong."""
    try:
        content = yaml.safe_load(path.read_text())
        providers = TypeAdapter(_File).validate_python(content).providers
        for provider in providers:
            if provider.jwks is not None and not keys_of(provider.jwks, provider):
                raise ValueError(f"{provider.issuer}: no key in jwks fits its algorithms")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None
    if len({provider.issuer for provider in providers}) < len(providers):
        raise ValueError(f"{path}: an issuer is named twice")
    return providers


class OutsideIssuers:
    """Verifies tokens of these providers. `start` looks for their keys, and again from time to time until `close`."""

    def __init__(self, providers: list[Provider], clock: Callable[[], float] = time.time) -> None:
        self._issuers = {one.issuer: _Issuer(one, keys_of(one.jwks or {}, one)) for one in providers}
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    def start(self) -> None:
        watched = [one for one in self._issuers.values() if one.provider.jwks_url is not None]
        self._tasks = [asyncio.create_task(self._watch(one), name="oidc-keys") for one in watched]

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def refresh(self) -> None:
        """Look for the keys of all providers now; what cannot be read stays as it is."""
        await asyncio.gather(*(self._look(one) for one in self._issuers.values() if one.provider.jwks_url))

    def verified(self, token: str) -> Named | None:
        """Whom a token names; None where it does not count."""
        header = header_of(token)
        if header is None or header.keys() & {"crit", "b64"}:
            return None
        try:
            issuer = orjson.loads(jwt.utils.base64url_decode(token.split(".")[1])).get("iss")
        except (ValueError, AttributeError):
            return None
        found = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            return None
        provider, kid = found.provider, header.get("kid")
        if header["alg"] not in provider.algorithms or not _fits(header.get("typ", "JWT"), provider.types):
            return None
        key = found.keys.get(kid) if kid is None or isinstance(kid, str) else None
        if key is None or (key.algorithm_name or header["alg"]) != header["alg"]:
            return None
        try:
            content = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                issuer=provider.issuer,
                audience=provider.audience,
                options={"require": _REQUIRED, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, jwt.PyJWKError, ValueError, TypeError):
            return None
        return _named(provider, content, token, self._clock())

    async def _watch(self, one: _Issuer) -> None:
        while not self._closed:
            fine = await self._look(one)
            await asyncio.sleep(one.provider.refresh_s if fine or one.keys else AGAIN)

    async def _look(self, one: _Issuer) -> bool:
        provider = one.provider
        try:
            keys = keys_of(await _fetched(str(provider.jwks_url)), provider)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("the keys of %s cannot be read: %s", provider.issuer, error or type(error).__name__)
            return False
        if not keys:
            log.warning("%s publishes no key that fits its algorithms: those of before stay", provider.issuer)
            return False
        one.keys = keys
        return True


async def _fetched(url: str) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with (
        aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"it answers {answer.status}")
        raw = await answer.content.read(LARGEST + 1)
        while len(raw) <= LARGEST and (more := await answer.content.read(LARGEST + 1 - len(raw))):
            raw += more
    if len(raw) > LARGEST:
        raise ValueError("it is larger than a key set should be")
    content = orjson.loads(raw)
    if not isinstance(content, dict):
        raise ValueError("it is no key set")
    return content


def keys_of(jwks: Mapping[str, Any], provider: Provider) -> dict[str | None, jwt.PyJWK]:
    """The usable keys of a set by their ids; a single one also without."""
    found: dict[str | None, jwt.PyJWK] = {}
    entries = jwks.get("keys", [])
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if entry.get("use", "sig") != "sig" or entry.get("alg", provider.algorithms[0]) not in provider.algorithms:
            continue
        try:
            key = jwt.PyJWK({name: value for name, value in entry.items() if name != "d"})
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < SMALLEST:
            continue
        found[entry.get("kid")] = key
    if len(found) == 1:
        found[None] = next(iter(found.values()))
    return found


def _fits(kind: object, types: list[str]) -> bool:
    """Of a `typ`, whose case does not count and whose `application/` may be left out (RFC 7515, section 4.1.9)."""
    return isinstance(kind, str) and kind.lower().removeprefix("application/") in {one.lower() for one in types}


def _named(provider: Provider, content: Mapping[str, Any], token: str, now: float) -> Named | None:
    issued, expires, subject = content["iat"], content["exp"], content["sub"]
    if not (is_number(issued) and is_number(expires)) or issued > now + AHEAD or expires <= now:
        return None
    tenant, role = _tenant(provider, content), _role(provider, content)
    if tenant is None or role is None or not subject or len(subject) > 255:
        return None
    told = f"{tenant}\n{provider.issuer}\n{subject}"
    email, name = content.get("email"), content.get("name")
    scope = _claim(content, provider.scope_claim) if provider.scope_claim else None
    words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
    return Named(
        tenant,
        provider.issuer,
        subject,
        str(content.get("jti") or hashlib.sha256(token.encode()).hexdigest()),
        "usr_" + hashlib.sha256(told.encode()).hexdigest()[:32],
        (email if isinstance(email, str) and email else subject)[:254].replace("\0", ""),
        name[:255].replace("\0", "") if isinstance(name, str) else None,
        role,
        tuple(map(str, words)) if provider.scope_claim else None,
        float(issued),
        float(expires),
    )


def _tenant(provider: Provider, content: Mapping[str, Any]) -> str | None:
    if provider.tenant_claim is None:
        return provider.tenant
    value = _claim(content, provider.tenant_claim)
    if not isinstance(value, str):
        return None
    tenant = value if provider.tenants is None else provider.tenants.get(value, "")
    return tenant if is_id(tenant, "ten") else None


def _role(provider: Provider, content: Mapping[str, Any]) -> str | None:
    """Never the operator's: a value counts only where the file turns it into a role."""
    value = _claim(content, provider.roles_claim) if provider.roles_claim else None
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return next((role for told, role in provider.roles.items() if told in values), provider.default_role)


def _claim(content: Mapping[str, Any], path: str) -> Any:
    """A claim by its name; where there is none, dots reach into objects."""
    if path in content:
        return content[path]
    found: Any = content
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found
