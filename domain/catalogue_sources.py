"""Where a tenant's products are kept: here, or in a service of the shop's own."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.errors import BrainError

SourceAuth = Literal["none", "bearer", "header"]
SHORTEST, LONGEST, USUAL = 100, 10_000, 2_000  # milliseconds that a service may take for an answer


class CatalogueElsewhere(BrainError):
    """The products of this tenant are kept by a service of its own: change them there."""

    status = 409
    type = "conflict_error"
    code = "catalogue_elsewhere"


@dataclass(frozen=True, slots=True)
class CatalogueSource:
    """A service that a tenant's products come from, without its secret.

    `header`: which one carries the secret, where `auth` says so. `version`: another one after each change.
    """

    url: str
    auth: SourceAuth
    header: str | None
    timeout_ms: int
    version: str
    updated_at: datetime
