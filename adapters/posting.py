"""One signed request to a URL that a tenant gave, and what its answer means for a delivery."""

import email.utils
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from adapters.outgoing import ForbiddenUrl, Outgoing, OutgoingFailed
from adapters.standard_webhooks import sign
from domain.channels import Sent
from domain.deliveries import ANSWER

GONE = 410
TYPE = "application/json"
LONGEST = 86_400.0  # seconds of a Retry-After that are heeded


class Posting:
    """`clock`: Unix seconds."""

    def __init__(self, outgoing: Outgoing, clock: Callable[[], float] = time.time) -> None:
        self._outgoing, self._clock = outgoing, clock

    async def post(
        self, url: str, secrets: tuple[bytes, ...], id: str, body: Mapping[str, Any], type: str = TYPE
    ) -> Sent:
        """Send `body` as JSON, signed by each of the secrets. A redirect is followed no more than any other failure."""
        raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"content-type": type, **sign(secrets, id, int(self._clock()), raw)}
        try:
            answer = await self._outgoing.request("POST", url, headers, raw)
        except (ForbiddenUrl, OutgoingFailed) as error:
            return Sent("later", error=str(error))
        text = answer.body[:ANSWER].decode("utf-8", "replace").replace("\0", "")
        if 200 <= answer.status < 300:
            return Sent("taken", answer.status, text)
        if answer.status == GONE:
            return Sent("gone", answer.status, text, error="the receiver is gone")
        after = retry_after(answer.headers.get("retry-after"), self._clock())
        return Sent("later", answer.status, text, after, f"the receiver answered {answer.status}")


def retry_after(text: str | None, now: float) -> float | None:
    """Seconds, of `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None where it says nothing."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST)
    try:
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0), LONGEST)
    except (TypeError, ValueError, OverflowError):
        return None
