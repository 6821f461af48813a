"""Serve's usual router, which also tells this process which replicas run."""

from typing import Any

from ray.serve._private.request_router import PowerOfTwoChoicesRequestRouter

from deployments.membership import members_of


class TellingRouter(PowerOfTwoChoicesRequestRouter):  # type: ignore[misc]
    """Chooses as Serve does by itself."""

    _deployment_id: Any

    def update_replicas(self, replicas: list[Any]) -> None:
        super().update_replicas(replicas)
        members_of(self._deployment_id.name).tell(replica.replica_id.unique_id for replica in replicas)
