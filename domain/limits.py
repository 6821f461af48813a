"""How much a tenant may ask for: requests and tokens a minute, turns at once; for itself, each user and each key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from domain.errors import Overloaded
from domain.rates import Limits as Limits
from domain.rates import Rates as Rates
from domain.tenant import Caller

MINUTE = 60.0  # seconds in which a bucket fills: also the burst, of a whole minute's worth
MOST_OWED = 3600.0  # seconds of tokens that may be owed, at the most

Kind = Literal["requests", "tokens", "turns"]
Use = Literal["request", "tokens", "turn"]
"""What a request takes: itself; tokens of a model too; or a turn (or completion), which takes tokens and runs."""

_WORDS = {"requests": "requests a minute", "tokens": "tokens a minute", "turns": "turns at once"}


UNLIMITED = Limits()


class Rule(NamedTuple):
    """One limit that a request has to pass. `bucket`: what it is counted in; `cost`: what the request takes of it."""

    bucket: str
    subject: str
    kind: Kind
    limit: int
    cost: int

    def __str__(self) -> str:
        whose = "this tenant's" if self.subject == "tenant" else f"this {self.subject}'s"
        return f"{whose} limit of {self.limit} {_WORDS[self.kind]}"


class State(NamedTuple):
    """What is left under a rule, and the seconds until all of it is there again; of a rule that refused, the seconds
    until it would not."""

    remaining: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking. `refused`: the place of the rule that refuses for the longest, None where all let it pass;
    `states`: one for each rule."""

    refused: int | None
    states: Sequence[State]


class RateLimited(Overloaded):
    """A limit of this tenant, user or key is reached."""

    code = "rate_limited"

    def __init__(self, words: str = "a limit is reached", retry_after: int = 1) -> None:
        super().__init__(words, retry_after)  # pickle rebuilds an exception from args
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}


def rules_of(limits: Limits, caller: Caller, use: Use, tokens: int) -> list[Rule]:
    """The limits that a request of `caller` has to pass which may take `tokens`; none where none are set."""
    rules: list[Rule] = []
    for subject, name, rates in (
        ("tenant", "", limits),
        ("user", caller.user, limits.per_user),
        ("key", caller.key_id, limits.per_key),
    ):
        if name is None:
            continue
        for kind, limit, cost in _of(rates, use, tokens):
            # The braces keep a tenant's buckets together in a cluster of Redis: one script takes of all of them.
            rules.append(Rule(f"brain:{{{caller.tenant}}}:limits:{subject}:{name}:{kind}", subject, kind, limit, cost))
    return rules


def channel_rule(tenant: str, channel: str, per_minute: int) -> Rule:
    """What one channel may send in."""
    return Rule(f"brain:{{{tenant}}}:limits:channel:{channel}:requests", "channel", "requests", per_minute, 1)


def _of(rates: Rates, use: Use, tokens: int) -> Iterator[tuple[Kind, int, int]]:
    if rates.requests_per_minute is not None:
        yield "requests", rates.requests_per_minute, 1
    if rates.tokens_per_minute is not None and use != "request":
        yield "tokens", rates.tokens_per_minute, tokens
    if rates.concurrent_turns is not None and use == "turn":
        yield "turns", rates.concurrent_turns, 1
