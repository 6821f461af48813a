"""Starts the parts of a Brain, keeps them alive, and ends them."""

import asyncio
import contextlib
import json
import os
import time
from typing import Any, Protocol

from deployments.local_llm import PREFIX
from domain.errors import OtherEmbedder
from serve_app.embedded import given, leftovers, ports
from serve_app.embedded.child import Child
from serve_app.embedded.folder import DataFolder, write_private
from serve_app.embedded.master_key import master_key
from serve_app.embedded.operator_key import operator_key
from serve_app.embedded.plan import Plan
from serve_app.embedded.postgres import OWNER, Postgres
from serve_app.embedded.ray_node import RayNode
from serve_app.embedded.redis import Redis
from serve_app.embedded.refusal import Refusal
from serve_app.embedded.reporter import Reporter
from serve_app.embedded.serve_config import local_config
from serve_app.embedded.serve_rest import DeployRefused, ServeRest, Unreachable, components, is_ready
from serve_app.settings import Settings
from storage.access import API_KEYS

LONGEST_PAUSE = 30.0  # seconds between two tries to start a part again
NOTICE = 1.5  # seconds in which balancers can see that readiness is off
STEADY = 60.0  # seconds after which a part's earlier deaths are forgotten
DEPLOY_PATIENCE = 240.0  # seconds; the first start of a machine compiles and trains
LOADING_PATIENCE = 1800.0  # seconds more where models are downloaded and loaded here
LOOKS, BETWEEN_LOOKS = 60, 1.0  # number, seconds: the embedder may be loaded long after the API is ready
NOT_FOR_REPLICAS = ("BRAIN_API_KEY", "BRAIN_DATABASE_ADMIN_URL")


class Part(Protocol):
    """A server that is started, waited for, watched and stopped."""

    name: str
    child: Child | None

    async def start(self) -> None: ...

    async def ready(self) -> None:
        """Raises `Refusal` if it does not get ready."""
        ...

    async def stop(self) -> None: ...


class Supervisor:
    """One `brain up`. `import_path` is the Serve application, that of configs/local.yaml if None."""

    def __init__(
        self, folder: DataFolder, settings: Settings, plan: Plan, reporter: Reporter, import_path: str | None = None
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.plan = plan
        self.reporter = reporter
        self.import_path = import_path
        self.stopping = False
        self.announced = False
        self.parts: list[Part] = []
        self._looking: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Start, say so, and serve until `stop` is set. Everything that was started has ended on return."""
        with self.folder.lock():
            starting = asyncio.create_task(self._start())
            stopped: asyncio.Task[Any] = asyncio.create_task(stop.wait())
            watching: list[asyncio.Task[None]] = []
            try:
                await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    watching = [asyncio.create_task(self._keep(part)) for part in await starting]
                    await asyncio.wait({stopped, *watching}, return_when=asyncio.FIRST_COMPLETED)
                    for task in watching:
                        if task.done():
                            task.result()  # a part that cannot be kept alive any more
            finally:
                self.stopping = True
                beside = [starting, stopped, *watching, *([self._looking] if self._looking else [])]
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                await self._stop()

    async def _start(self) -> list[Part]:
        settings, plan = self.settings, self.plan
        key = operator_key(
            self.folder, settings.api_key.get_secret_value() if settings.api_key else None, plan.public, self.reporter
        )
        self.master_keys, self.master_key = master_key(self.folder, settings)
        ended = await asyncio.to_thread(leftovers.end, self.folder.instance)
        if ended:
            self.reporter.line(f"ended {ended} processes that an earlier start had left")
        if not ports.is_free(plan.port, plan.host):
            raise Refusal(f"port {plan.port} of {plan.host} is taken or not allowed: choose another one with --port")
        chosen = ports.choose(self.folder, avoid=(plan.port,))
        postgres = None if settings.database_url else Postgres(self.folder, chosen["postgres"])
        redis = None if settings.redis_url else Redis(self.folder, chosen["redis"])
        self.database_url = settings.database_url.get_secret_value() if settings.database_url else ""
        self.redis_url = settings.redis_url.get_secret_value() if settings.redis_url else ""
        admin_url = settings.admin_url.get_secret_value() if settings.admin_url else ""
        await self._check_given(admin_url)
        if postgres:
            self.database_url, admin_url = postgres.url(), postgres.url(OWNER)
        if redis:
            self.redis_url = redis.url
        self.ray = RayNode(self.folder, chosen, self._replicas_environment(), plan.host, plan.port, settings.edge)
        self.parts = [part for part in (postgres, redis, self.ray) if part is not None]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bring_up(self.ray, "Ray"))
            if redis is not None:
                group.create_task(self._bring_up(redis, "Redis"))
            database = group.create_task(self._database(postgres, admin_url, key))
        tenant, _ = database.result()
        with self.reporter.step("Serve: ingress, conversation hosts, models"):
            await self._deploy()
        self._announce(key, tenant)
        self._looking = asyncio.create_task(self._look_at_the_index(key))
        return self.parts

    async def _check_given(self, admin_url: str) -> None:
        """Servers that were given by URL must answer before anything starts."""
        if self.database_url:
            await given.check_database("BRAIN_DATABASE_URL", self.database_url)
        if admin_url and admin_url != self.database_url:
            await given.check_database("BRAIN_DATABASE_ADMIN_URL", admin_url)
        if self.redis_url:
            await given.check_redis("BRAIN_REDIS_URL", self.redis_url)
            await given.say_serving(self.redis_url)
        await asyncio.to_thread(given.check_embedder, self.settings)
        if self.settings.vectors_url is not None:
            key = self.settings.vectors_key.get_secret_value() if self.settings.vectors_key else None
            await asyncio.to_thread(given.check_vectors, "BRAIN_VECTORS_URL", self.settings.vectors_url, key)

    async def _database(self, postgres: Postgres | None, admin_url: str, key: str) -> tuple[str, str]:
        from storage.bootstrap import bootstrap
        from storage.migrations import upgrade

        if postgres is not None:
            await self._bring_up(postgres, "PostgreSQL")
            await postgres.make_database()
        with self.reporter.step("database schema"):
            await asyncio.to_thread(upgrade, admin_url)
            if postgres is not None:
                await postgres.grant_service()
            else:
                await given.check_service("BRAIN_DATABASE_URL", self.database_url, self.settings.database_pooled)
            pepper = self.master_keys.derived(API_KEYS)[0]
            return await asyncio.to_thread(bootstrap, admin_url, key, pepper=pepper)

    async def _bring_up(self, part: Part, title: str) -> None:
        with self.reporter.step(title):
            await part.start()
            await part.ready()

    async def _deploy(self) -> None:
        """Tell Serve what to run and wait until the API says that it is ready."""
        config = local_config(self.plan.port, self.plan.catalog)
        if self.import_path:
            config["applications"][0]["import_path"] = self.import_path
        rest, host = self.ray.rest(), self._own_host
        limit = DEPLOY_PATIENCE + (LOADING_PATIENCE if self.plan.local else 0)
        deadline = time.monotonic() + limit
        patience = limit - 30
        try:
            await asyncio.to_thread(rest.deploy, config)
            asked = time.monotonic()
            while not await asyncio.to_thread(is_ready, host, self.plan.port) or await self._loading(rest):
                if time.monotonic() > deadline:
                    raise DeployRefused(f"not ready after {limit:.0f} s")
                if time.monotonic() - asked > 3:
                    asked = time.monotonic()
                    if deadline - asked < patience:  # once: say why this takes so long
                        patience = 0
                        waiting = ", ".join(await asyncio.to_thread(rest.waiting_for)) or "the first request"
                        self.reporter.line(f"still waiting for {waiting}")
                    if reason := await asyncio.to_thread(rest.failure):
                        raise DeployRefused(reason)
                await asyncio.sleep(0.1)
        except (DeployRefused, Unreachable) as error:
            raise Refusal(
                f"the service did not start: {error}; see {self.ray.runtime}/r/t/session_latest/logs/serve"
            ) from None

    @property
    def _own_host(self) -> str:
        host = "127.0.0.1" if self.plan.host in ("0.0.0.0", "localhost") else self.plan.host  # noqa: S104
        return "::1" if host == "::" else host

    async def _look_at_the_index(self, key: str) -> None:
        """Say it where what is indexed is another embedder's: whoever started this may not have meant it."""
        name = next((one.replace("*", "brain") for one in sorted(self.settings.edge.hosts)), None)
        for _ in range(LOOKS):
            told = await asyncio.to_thread(components, self._own_host, self.plan.port, key, name)
            found = told.get("indexer", {})
            words = str((found.get("last_error") or {}).get("message", ""))
            if found.get("status") == "ok":
                return
            if OtherEmbedder.remedy in words:
                self.reporter.line(
                    f"{words}, with the settings and the --data of this start. Until then turns are answered and"
                    " stored as ever, and wait to be indexed; searches in messages answer 409"
                )
                return
            await asyncio.sleep(BETWEEN_LOOKS)

    async def _loading(self, rest: ServeRest) -> bool:
        """Whether a model that runs here is not ready yet."""
        return self.plan.local and any(name.startswith(PREFIX) for name in await asyncio.to_thread(rest.waiting_for))

    async def _keep(self, part: Part) -> None:
        """Start a part again whenever it dies, with growing pauses while it dies soon."""
        pause, began = 0.2, time.monotonic()
        while part.child is not None:
            code = await part.child.wait()
            if time.monotonic() - began > STEADY:
                pause = 0.2
            self.reporter.line(f"{part.name} ended (code {code}): starting it again in {pause:.1f} s")
            while True:
                await asyncio.sleep(pause)
                pause, began = min(pause * 2, LONGEST_PAUSE), time.monotonic()
                try:
                    if isinstance(part, RayNode):
                        await part.clear()
                    await part.start()
                    await part.ready()
                    if isinstance(part, RayNode):
                        await self._deploy()
                except (Refusal, OSError) as error:
                    self.reporter.line(f"{part.name}: {error}; next try in {pause:.1f} s")
                    await part.stop()
                else:
                    break
            self.reporter.line(f"{part.name} is back after {time.monotonic() - began:.1f} s")

    async def _stop(self) -> None:
        """Within 15 s: readiness off (2.5), replicas' grace (4.5), Ray (3), Redis and PostgreSQL together (4)."""
        if not self.parts:
            return
        began = time.monotonic()
        say = self.reporter.line if self.announced else lambda _: None  # a failed start tells only why it failed
        say("stopping")
        with contextlib.suppress(Exception):  # a dead Redis must not keep anything alive
            await asyncio.wait_for(given.say_draining(self.redis_url), 1.0)
        if self.announced:
            await asyncio.sleep(NOTICE)
        if self.ray.child is not None and self.ray.child.alive:
            with contextlib.suppress(Unreachable):
                await asyncio.to_thread(self.ray.rest().delete, 4.5)
        await self.ray.stop()
        await asyncio.gather(*(part.stop() for part in self.parts if part is not self.ray), return_exceptions=True)
        await asyncio.to_thread(leftovers.end, self.folder.instance, None, 1.0)
        say(f"stopped ({time.monotonic() - began:.1f} s)")

    def _replicas_environment(self) -> dict[str, str]:
        """The environment of this command, without what replicas have no business with, and the servers' addresses."""
        environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_REPLICAS}
        return {
            **environment,
            **self.plan.environment,
            "BRAIN_MASTER_KEY": self.master_key,
            "BRAIN_DATABASE_URL": self.database_url,
            "BRAIN_REDIS_URL": self.redis_url,
            "BRAIN_VECTORS_URL": self.settings.vectors_url or str(self.folder.path / "vectors"),
            "BRAIN_DATA": str(self.folder.path),
            "BRAIN_ISSUER": self.settings.issuer or self.plan.url,
            "BRAIN_LOG_LEVEL": self.settings.log_level,
            "BRAIN_EMBEDDER_MODEL": self.settings.embedder_model,
            "BRAIN_EMBEDDER_PRECISION": self.settings.embedder_precision,
        }

    def _announce(self, key: str, tenant: str) -> None:
        self.announced = True
        url = self.plan.url
        self.folder.remember("url", url)
        ready: dict[str, Any] = {"url": url, "api_key": key, "tenant_id": tenant, "pid": os.getpid()}
        if self.plan.ready_file is not None:
            write_private(self.plan.ready_file, json.dumps(ready) + "\n")
        for title, text in (
            ("API", url),
            ("Docs", f"{url}/docs"),
            ("Ray dashboard", f"{self.ray.dashboard} (log in with the token in {self.folder.secrets / 'ray-token'})"),
            ("Operator's API key", key),
        ):
            print(f"{title + ':':<20}{text}", flush=True)
