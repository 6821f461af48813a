"""What signing in works with, in one ingress replica."""

from dataclasses import dataclass, field

from redis.asyncio import Redis
from starlette.requests import Request

from domain.errors import Unavailable
from serve_app.access_watch import AccessWatch
from serve_app.ingress.last_active import LastActive
from serve_app.ingress.outside import OutsideIssuers, read_providers
from serve_app.ingress.passwords import Passwords
from serve_app.ingress.token_callers import TokenCallers
from serve_app.ingress.tokens import Tokens
from serve_app.settings import Settings
from storage.attempts import Attempts
from storage.clients import PostgresClients
from storage.postgres import Pool
from storage.revocations import Revocations
from storage.sessions import PostgresSessions
from storage.signing_keys import PostgresSigningKeys
from storage.subjects import PostgresSubjects
from storage.user_activity import PostgresUserActivity
from storage.users import PostgresUsers

CLIENT_SECRETS = "client-secrets"  # purposes, among those of a master key
BODIES = "bodies-with-passwords"


@dataclass(slots=True)
class Identity:
    """`body_key`: bodies that hold a password are compared by an HMAC under it, never by a plain hash."""

    users: PostgresUsers
    sessions: PostgresSessions
    clients: PostgresClients
    callers: TokenCallers
    keys: PostgresSigningKeys
    passwords: Passwords
    attempts: Attempts
    last_active: LastActive
    activity: PostgresUserActivity
    body_key: bytes = field(repr=False)
    outside: OutsideIssuers | None = None

    @property
    def tokens(self) -> Tokens:
        return self.callers.tokens

    def start(self, watch: AccessWatch) -> None:
        """Hear what changes of access, and look for outside providers' keys."""
        self.callers.revocations.current = watch.current
        watch.listeners.append(self.callers.heard)
        if self.outside is not None:
            self.outside.start()

    async def close(self) -> None:
        await self.last_active.close()
        if self.outside is not None:
            await self.outside.close()


def identity(settings: Settings, pool: Pool, redis: Redis | None) -> Identity:
    """Raises ValueError where a setting is wrong."""
    master, lifetime = settings.master_keys, settings.access_token_s
    keys = PostgresSigningKeys(pool, master, lifetime)
    users = PostgresUsers(pool, lifetime)
    outside = OutsideIssuers(read_providers(settings.oidc_file)) if settings.oidc_file else None
    return Identity(
        users=users,
        sessions=PostgresSessions(pool, lifetime, settings.refresh_token_s, settings.session_idle_s),
        clients=PostgresClients(pool, master.derived(CLIENT_SECRETS), lifetime, settings.refresh_token_s),
        callers=TokenCallers(
            Tokens(settings.issuer_url, settings.audience, lifetime),
            keys,
            Revocations(pool, redis, lifetime),
            PostgresSubjects(pool),
            outside,
        ),
        keys=keys,
        passwords=Passwords(),
        attempts=Attempts(redis),
        last_active=LastActive(users),
        activity=PostgresUserActivity(pool),
        body_key=master.derived(BODIES)[0],
        outside=outside,
    )


def identity_of(request: Request) -> Identity:
    found: Identity | None = request.app.state.parts.identity
    if found is None:
        raise Unavailable("nobody signs in here")
    return found
