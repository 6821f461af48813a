"""What a tenant may be allowed at the most: requests and tokens a minute, turns at once."""

from pydantic import Field

from domain.model import Strict


class Rates(Strict):
    """None is no limit."""

    requests_per_minute: int | None = Field(None, ge=1, le=100_000_000)
    tokens_per_minute: int | None = Field(None, ge=1, le=10_000_000_000)
    concurrent_turns: int | None = Field(None, ge=1, le=1_000_000)


class Limits(Rates):
    """Of the tenant as a whole, and in it of each user and of each key."""

    per_user: Rates = Rates()
    per_key: Rates = Rates()
