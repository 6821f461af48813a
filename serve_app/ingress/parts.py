"""What the routes work with: the ports and the settings of one ingress replica."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from starlette.requests import Request

from actors.parts import AllHealthy, EveryModel, UsualSettings
from domain.embedding import EmbedderInfo
from domain.errors import FeatureOff, Unavailable
from domain.model import Catalog
from domain.ports import (
    Classifier,
    Embedder,
    Follower,
    Health,
    Hosts,
    LanguageModel,
    TenantLimits,
    TenantModels,
    TenantsSettings,
)
from domain.tenant import Caller
from domain.tenant_settings import Feature
from serve_app.access_watch import AccessWatch
from serve_app.caches import Caches
from serve_app.catalog_watch import CatalogWatch
from serve_app.edge_rules import EdgeRules
from serve_app.erasing import Erasing
from serve_app.ingress.accounting import Accounts
from serve_app.ingress.admission import Admission
from serve_app.ingress.callers import Callers, Find, nobody
from serve_app.ingress.context import visit_of
from serve_app.ingress.identity import Identity
from serve_app.ingress.keys_used import KeysUsed
from serve_app.ingress.limiter import Limiter, Unlimited
from serve_app.ingress.vitals import Vitals
from serve_app.memory import Memory
from serve_app.outward import Outward
from storage.audit import PostgresAudit
from storage.data_export import PostgresDataExport
from storage.intent_heads import PostgresHeads
from storage.intent_trainings import PostgresTrainings
from storage.intents import PostgresIntents
from storage.keys import PostgresKeys
from storage.ledger import PostgresLedger
from storage.limits import RedisLimits
from storage.platform import PostgresPlatform
from storage.reader import PostgresReader
from storage.roles import PostgresRoles
from storage.sealing import MasterKeys
from storage.tenants import PostgresTenants

if TYPE_CHECKING:  # it needs this file
    from serve_app.ingress.event_parts import Events


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """Times in seconds, sizes in bytes.

    `server_adds_request_id`: the server in front (Ray Serve) puts `x-request-id` on every answer itself, from the
    request's header, which it fills in where the client sent none.
    `admission_wait`: see `Admission`.
    """

    version: str = "0"
    max_body: int = 1024 * 1024
    keep_alive: float = 15
    poll: float = 0.25
    cancel_wait: float = 5
    model_header_wait: float = 5
    server_adds_request_id: bool = False
    admission_wait: float = 0
    edge: EdgeRules = field(default_factory=EdgeRules)
    started_at: int = field(default_factory=lambda: int(time()))


@dataclass(frozen=True, slots=True)
class Intents:
    """What tenants define and train. `wake` tells the trainer that a training waits."""

    defined: PostgresIntents
    trainings: PostgresTrainings
    heads: PostgresHeads
    wake: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Administration:
    """Tenants, their keys and roles, what was done with them, and figures of the whole. `delete` removes a tenant and
    all that is its; `used` hears of each key that is used."""

    tenants: PostgresTenants
    keys: PostgresKeys
    roles: PostgresRoles
    audit: PostgresAudit
    platform: PostgresPlatform
    delete: Callable[[Caller, str], Awaitable[None]]
    used: KeysUsed


TellFlush = Callable[[Caller, str], Awaitable[None]]


async def nobody_is_told(caller: Caller, name: str) -> None:
    """`TellFlush` of a service of one replica that keeps no records."""


@dataclass(frozen=True, slots=True)
class Privacy:
    """What gives data out whole, and what erases it."""

    erasing: Erasing
    export: PostgresDataExport


@dataclass(slots=True)
class Parts:
    """`catalog` is replaced when the configuration or a registered model changes. `metrics` gives Prometheus text for
    the whole service. `registry`: where models are registered and tenants' settings are kept. `find_token`: the caller
    of an access token. `watch`: hears what changes of access. `tenants`: what tenants are set to. `identity`: what
    signing in works with. `tenant_limits`: how much tenants may ask for; `shared_limits`: where all replicas count it.
    `caches`: what is remembered here, by name; `tell_flush`: tells all replicas, and the audit log, that a caller
    flushes one. `outward`: webhooks and channels. `master_keys`: seal providers' keys; without them none is taken.

    `ready` is False before the first start is complete and while draining. `checks` reach one component each.
    """

    reader: PostgresReader
    hosts: Hosts
    follower: Follower
    llm: LanguageModel
    embedder: Embedder
    classifier: Classifier
    catalog: Catalog
    metrics: Callable[[], Awaitable[str]]
    ledger: PostgresLedger
    ready: Callable[[], bool] = lambda: True
    checks: Mapping[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)
    settings: IngressSettings = field(default_factory=IngressSettings)
    models: TenantModels = field(default_factory=EveryModel)
    health: Health = field(default_factory=AllHealthy)
    registry: CatalogWatch | None = None
    intents: Intents | None = None
    memory: Memory | None = None
    administration: Administration | None = None
    tenants: TenantsSettings = field(default_factory=UsualSettings)
    privacy: Privacy | None = None
    master_keys: MasterKeys | None = None
    find_token: Find = nobody
    watch: AccessWatch | None = None
    identity: Identity | None = None
    tenant_limits: TenantLimits = field(default_factory=Unlimited)
    shared_limits: RedisLimits | None = None
    caches: Caches = field(default_factory=Caches)
    outward: Outward | None = None
    tell_flush: TellFlush = nobody_is_told
    callers: Callers = field(init=False)
    accounts: Accounts = field(init=False)
    vitals: Vitals = field(init=False)
    admission: Admission = field(init=False)
    limiter: Limiter = field(init=False)
    embedding_model: EmbedderInfo | None = None
    events: "Events | None" = None

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.ledger)
        self.callers = Callers(self.reader.find_api_key, self.find_token)
        if self.watch is not None:
            self.callers.current = self.watch.current
            self.watch.listeners += [self.callers.forget, self.caches.heard]
        self.caches.named["credentials"] = self.callers
        self.vitals = Vitals(self.checks)
        self.admission = Admission(self.settings.admission_wait)
        self.limiter = Limiter(self.tenant_limits, self.shared_limits)


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def intents_of(request: Request) -> Intents:
    found = parts_of(request).intents
    if found is None:
        raise Unavailable("intents cannot be defined or trained here")
    return found


def administration_of(request: Request) -> Administration:
    found = parts_of(request).administration
    if found is None:
        raise Unavailable("tenants, keys and roles cannot be changed here")
    return found


def outward_of(request: Request) -> Outward:
    found = parts_of(request).outward
    if found is None:
        raise Unavailable("there are no webhooks and channels here")
    return found


async def changed_here(request: Request) -> None:
    """After a change of access: it counts in this replica at once, in the others within a second."""
    watch = parts_of(request).watch
    if watch is not None:
        with suppress(Unavailable):
            await watch.refresh()


async def check_feature(request: Request, tenant: str, feature: Feature) -> None:
    """Raises `FeatureOff` where it is switched off for this tenant."""
    if not (await parts_of(request).tenants.settings(tenant)).enabled(feature):
        raise FeatureOff


def admit(request: Request, tenant: str, model: str) -> None:
    """Let a new turn or completion in, until the request has been answered. Raises `Refused`."""
    visit_of(request.scope).admitted = parts_of(request).admission.enter(tenant, model)
