"""The composed application: every deployment and every `bind()` stands here.

`serve run serve_app.app:build`, `serve deploy configs/….yaml` and `brain up` all build it from here. The options below
are defaults; a Serve configuration file overrides each of them by the deployment's name.

What runs in a replica is a plain class in a module of its own, `*_replica.py`: a process imports what its replica
needs, and a start is mostly imports. Recipes cross processes, never resources: each replica opens its own connections
from its settings, which come from the environment, so that no secret stands in Serve's configuration.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from deployments.local_llm import build_local_llms
from domain.model import parse_catalog
from serve_app.classifier_replica import ClassifierReplica
from serve_app.embedder_replica import EmbedderReplica
from serve_app.host_replica import HostReplica
from serve_app.hosted_llm_replica import HostedLLMReplica
from serve_app.indexer_replica import IndexerReplica
from serve_app.ingress_replica import IngressReplica
from serve_app.relay_replica import RelayReplica
from serve_app.settings import Settings
from serve_app.tools_replica import ToolsReplica
from serve_app.trainer_replica import TrainerReplica
from storage.compatibility import check_before

SESSIONS = RequestRouterConfig(
    request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
    request_router_kwargs={"num_fallback_replicas": 0},
)
OUT_OF_REACH = 100_000  # a replica at its limit would block the router for every session: it bounds itself

SURGE = 25  # percent, one replica at least: new code serves before old code stops; not where a model takes its own GPU


class BuildArguments(BaseModel):
    """Arguments of the application (`args` in a Serve configuration file); secrets never stand here."""

    model_config = {"extra": "forbid"}

    catalog: dict[str, Any] = {}
    """Providers and routing for deployments that have no `user_config` of their own (see configs/).

    Its vLLM models are deployed: they are fixed when the application is built.
    """


def build(args: BuildArguments) -> Application:
    """Ingress → ConversationHost → IntentClassifier → Embedder, and HostedLLM → a deployment for each vLLM model.

    IntentTrainer → Embedder makes the classifier's heads, by work from the database; the Indexer works from the
    outbox. The Relay carries events and messages out of the service and messages of other channels in. Tools calls the
    servers of tools for the hosts.

    Generations that begin with a vLLM model run in its own deployment, while that has a replica. Raises
    `IncompatibleSchema` where the database's schema does not allow this code, ValueError where there is no master key:
    then nothing that runs is touched.
    """
    settings = Settings()
    if settings.database_url is not None:
        check_before(settings.database_url.get_secret_value())
        _ = settings.master_keys  # raises where replicas could not start without it
    shared = {**common(), "user_config": args.catalog}
    local = build_local_llms(parse_catalog(args.catalog), shared, _local_replica)
    options = {**common(), "max_surge_percent": SURGE}
    embedder = build_embedder()
    classifier = build_classifier(embedder)
    trainer = serve.deployment(
        TrainerReplica,
        name="IntentTrainer",
        num_replicas=1,
        max_ongoing_requests=64,
        max_queued_requests=256,
        ray_actor_options={"num_cpus": 0.1},
        **options,
    ).bind(embedder)
    llm = serve.deployment(
        HostedLLMReplica,
        name="HostedLLM",
        max_ongoing_requests=OUT_OF_REACH,
        ray_actor_options={"num_cpus": 0.2},
        request_router_config=SESSIONS,
        user_config=args.catalog,
        **options,
    ).bind(local)
    tools = serve.deployment(
        ToolsReplica,
        name="Tools",
        num_replicas=1,
        max_ongoing_requests=512,
        max_queued_requests=512,
        ray_actor_options={"num_cpus": 0.1},
        **options,
    ).bind()
    host = serve.deployment(
        HostReplica,
        name="ConversationHost",
        num_replicas=2,
        max_ongoing_requests=OUT_OF_REACH,
        ray_actor_options={"num_cpus": 0.2},
        request_router_config=SESSIONS,
        user_config=args.catalog,
        **options,
    ).bind(llm, classifier, local, embedder, tools)
    indexer = serve.deployment(
        IndexerReplica,
        name="Indexer",
        max_ongoing_requests=64,  # it is only asked how it is: its work comes from the outbox
        ray_actor_options={"num_cpus": 0.1},
        **options,
    ).bind(embedder)
    relay = serve.deployment(
        RelayReplica,
        name="Relay",
        num_replicas=1,
        max_ongoing_requests=64,  # it is only asked how it is
        ray_actor_options={"num_cpus": 0.1},
        **options,
    ).bind(host)
    return serve.deployment(
        serve.ingress()(IngressReplica),
        name="Ingress",
        num_replicas=2,
        max_ongoing_requests=14_000,  # 10,000 of them WebSockets; requests are bounded by the application
        max_queued_requests=4096,
        ray_actor_options={"num_cpus": 0.2},
        user_config=args.catalog,
        **options,
    ).bind(host, llm, embedder, classifier, local, trainer, indexer, relay, tools)


def build_embedder(environment: Mapping[str, str] | None = None) -> Application:
    """Texts as vectors. `environment`: variables of its replicas beside this process's."""
    actor: dict[str, Any] = {"num_cpus": 0.5}
    if environment:
        actor["runtime_env"] = {"env_vars": dict(environment)}
    return serve.deployment(
        EmbedderReplica,
        name="Embedder",
        max_ongoing_requests=512,
        max_queued_requests=1024,
        ray_actor_options=actor,
        max_surge_percent=SURGE,
        **common(),
    ).bind()


def build_classifier(embedder: Application) -> Application:
    """What messages ask for, over their vectors."""
    return serve.deployment(
        ClassifierReplica,
        name="IntentClassifier",
        max_ongoing_requests=256,
        max_queued_requests=512,
        ray_actor_options={"num_cpus": 0.1},
        max_surge_percent=SURGE,
        **common(),
    ).bind(embedder)


def common() -> dict[str, Any]:
    """What every deployment shares: quick detection of a dead replica, a bounded drain, no access log a hop."""
    return {
        "health_check_period_s": 2,
        "health_check_timeout_s": 10,
        "graceful_shutdown_timeout_s": 10,
        "graceful_shutdown_wait_loop_s": 0.5,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }


def _local_replica() -> type:
    from serve_app.local_replica import LocalLLMReplica

    return LocalLLMReplica
