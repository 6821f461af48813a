"""A tenant's intents over HTTP, by its client: trained, and waited for until every replica goes by them."""

from collections.abc import Callable
from typing import Any

import httpx

from tests.conftest import wait_until


def examples(**intents: list[str]) -> list[dict[str, str]]:
    return [{"text": text, "intent": name} for name, texts in intents.items() for text in texts]


def post(http: httpx.Client, path: str, body: Any, status: int = 200) -> Any:
    answer = http.post(f"/api/v1/intents/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def train(http: httpx.Client, given: list[dict[str, str]], **more: Any) -> Any:
    """The training, which has ended well. It is asked for again and again: one may take longer than any answer."""
    done = ended(http, post(http, "train", {"examples": given, **more}, 202)["id"])
    assert done["status"] == "completed", done
    return done


def version_of(http: httpx.Client, text: str = "hello") -> int:
    return int(post(http, "classify", {"text": text})["version"])


def everywhere(http: httpx.Client, version: int) -> None:
    """Wait until no replica answers by another version."""
    wait_until(lambda: {version_of(http) for _ in range(20)} == {version}, 30, 0.1, what=f"version {version}")


def ended(http: httpx.Client, training: str, told: Callable[[Any], object] = lambda found: None) -> Any:
    """The training, when it has ended. `told` hears of each look at it."""

    def look() -> Any:
        answer = http.get(f"/api/v1/intents/training/{training}")
        if answer.status_code != 200:
            return None
        found = answer.json()
        told(found)
        return found if found["status"] in ("completed", "failed") else None

    return wait_until(look, 240, 0.2, what=f"the end of {training}")
