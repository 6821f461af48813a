"""What is rolled out while clients work, and what has to be seen from outside before it counts as done."""

import copy
from collections.abc import Callable

from storage.compatibility import shipped
from tests.nodes.scenarios import Scenario
from tests.rollouts.release import CONTRACTION, EXPANSION, contracted, expanded, release
from tests.rollouts.service import Service

HOSTS = "ConversationHost"
HASTE = 4.0  # seconds


def hosts(*numbers: int) -> Callable[[Service], None]:
    """So many of them, one number after the other."""

    def act(service: Service) -> None:
        for number in numbers:
            service.rolled(service.config(replicas={HOSTS: number}))
            service.pause()

    return act


def user_config(service: Service) -> None:
    """A model more, and back."""
    changed = copy.deepcopy(service.catalog)
    changed["providers"][0]["models"].insert(0, {"id": "rolled-out", "upstream": "mock,n=6"})
    for catalog, status in ((changed, 200), (service.catalog, 404)):
        service.rolled(service.config(catalog=catalog))
        service.reached("/v1/models/rolled-out", lambda found, _, wanted=status: found == wanted)
        service.pause()


def code(service: Service) -> None:
    """Another version of the code, and back."""
    before = service.asked("/health")[1]["version"]
    changed = release(service.folder, "0.1.1")
    for config, version in ((service.config(changed), changed.version), (service.config(), before)):
        service.rolled(config)
        service.versions(version)
        service.pause()


def hasty_code(service: Service) -> None:
    """As `code`, with less time for what a replica has begun than many turns need."""
    service.rolled(service.config(grace=HASTE))
    changed = release(service.folder, "0.1.2")
    for config in (service.config(changed, grace=HASTE), service.config(grace=HASTE)):
        service.rolled(config)
        service.pause()
    service.rolled(service.config())


def schema(service: Service) -> None:
    """N → N+1 → N → N+1, and the contraction when nothing of N runs any more."""
    before = service.asked("/health")[1]["version"]
    following = expanded(service.folder, "0.2.0", shipped())
    last = contracted(service.folder, "0.3.0", shipped())
    words = service.refused(service.config(following))  # before its migration
    assert "run `brain db upgrade` first" in words, words
    service.versions(before)
    service.migrate(following, "upgrade")  # expand: the old code runs on it
    service.pause()
    for config, version in (
        (service.config(following), following.version),
        (service.config(), before),
        (service.config(following), following.version),
    ):
        service.rolled(config)
        service.versions(version)
        service.pause()
    assert service.brain.sql("SELECT 1 FROM brain.conversations WHERE made_by = %s LIMIT 1", following.version)
    service.migrate(last, "upgrade")  # contract: the old code would fail on it
    words = service.refused(service.config())
    assert f"needs code of {EXPANSION} or later" in words, words
    service.versions(following.version)
    service.rolled(service.config(last))
    service.versions(last.version)
    assert service.brain.sql("SELECT revision FROM brain.schema_compatibility()") == [(CONTRACTION,)]
    service.pause()


SCENARIOS = (
    Scenario("hosts-1-4-1", hosts(1, 4, 1), 5.0, strict=True),
    Scenario("user_config", user_config, 5.0, strict=True),
    Scenario("code", code, 5.0, strict=True),
    Scenario("hasty-code", hasty_code, 5.0, strict=True),
    Scenario("schema", schema, 5.0, strict=True),
)
