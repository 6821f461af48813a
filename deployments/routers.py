"""Serve's routers for local models, which also tell this process how many replicas each deployment has."""

from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from deployments.presence import replicas_of


class TellsReplicas:
    """Mixin before a router of Serve's."""

    _deployment_id: Any

    def update_replicas(self, replicas: list[Any]) -> None:
        super().update_replicas(replicas)  # type: ignore[misc]
        replicas_of(self._deployment_id.name).tell(len(replicas))


class SessionRouter(TellsReplicas, ConsistentHashRouter):  # type: ignore[misc]
    """By the conversation, with consistent hashing: its replica, or the next one on the ring that is not full.

    `places`: the calls at once that fill a replica. It takes more: those wait in it, served fairly among tenants.
    """

    _places: int

    def initialize_state(self, places: int, **more: Any) -> None:
        super().initialize_state(**more)
        self._places = places

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        ranked = await super().choose_replicas(candidate_replicas, pending_request)
        return sorted(ranked, key=self._full)

    def _full(self, rank: list[Any]) -> bool:
        """As far as this handle was told, with the last answer that it got from there."""
        known = self.replica_queue_len_cache
        return all((known.get(replica.replica_id) or 0) >= self._places for replica in rank)
