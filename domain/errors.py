"""Every failure the domain knows. Each crosses process boundaries, so each rebuilds from its `args`.

`Retryable` ones may be sent again with the same idempotency key; the others are final.
"""


class BrainError(Exception):
    """The service could not do what was asked."""

    status = 500
    type = "internal_error"
    code: str | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else (type(self).__doc__ or "").split("\n")[0]


class Retryable(BrainError):
    """The service cannot answer now; the same request may be sent again."""

    status = 503
    type = "service_unavailable"
    code = "unavailable"
    retry_after = 1  # seconds


class Unavailable(Retryable):
    """A part that this call needs is not reachable."""


class CommitUnknown(Unavailable):
    """The connection broke during a commit: it may or may not have happened."""


class Fenced(Retryable):
    """Another host now owns this conversation."""

    code = "conversation_moved"


class Overloaded(Retryable):
    """Too many messages are waiting."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class NotFound(BrainError):
    """There is no such thing here."""

    status = 404
    type = "not_found_error"
    code = "not_found"


class MessageGone(NotFound):
    """The message of this turn was deleted."""


class ModelNotFound(NotFound):
    """There is no such model, or it is not allowed here."""

    code = "model_not_found"


class ConversationEnded(BrainError):
    """This conversation has ended; start another one."""

    status = 409
    type = "conflict_error"
    code = "conversation_ended"


class ConversationBusy(BrainError):
    """A turn of this conversation is running, and `on_busy` is `reject`."""

    status = 409
    type = "conflict_error"
    code = "conversation_busy"


class NameTaken(BrainError):
    """There is one of this name already."""

    status = 409
    type = "conflict_error"
    code = "name_taken"


class QuotaExceeded(BrainError):
    """This tenant has no room for more of these; ask the operator for a larger quota."""

    status = 409
    type = "conflict_error"
    code = "quota_exceeded"


class FeatureOff(BrainError):
    """This is switched off for this tenant; ask the operator to switch it on."""

    status = 403
    type = "permission_error"
    code = "feature_off"


class IdempotencyMismatch(BrainError):
    """This idempotency key was used with another body."""

    status = 422
    type = "idempotency_error"
    code = "idempotency_mismatch"


class InvalidExamples(BrainError):
    """No head can be trained from these examples, or measured; the message names what is wrong."""

    status = 422
    type = "invalid_request_error"
    code = "invalid_examples"

    @property
    def param(self) -> str | None:
        """The field of the request: the second of `args`, where there is one."""
        return self.args[1] if len(self.args) > 1 else "examples"


class NotTunable(BrainError):
    """The embedder's model has no layers that could be tuned."""

    type = "invalid_request_error"
    code = "not_tunable"
    param = "effort"


class BudgetExceeded(BrainError):
    """The tenant's budget for this period is spent."""

    status = 402
    type = "billing_error"
    code = "budget_exceeded"


class InvalidSlot(BrainError):
    """This entity slot cannot be used."""

    status = 422
    type = "invalid_request_error"
    code = "invalid_slot"

    def __init__(self, slot: str, problem: str) -> None:
        super().__init__(slot, problem)  # pickle rebuilds an exception from args
        self.slot, self.problem = slot, problem

    def __str__(self) -> str:
        return f"slot {self.slot}: {self.problem}"


class SpaceMismatch(BrainError):
    """The stored vectors are another embedder's; `wanted` and `found` name each with its dimensions."""

    status = 409
    code = "space_mismatch"

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(wanted, found)
        self.wanted, self.found = wanted, found

    def __str__(self) -> str:
        return f"vectors of {self.found} cannot be compared with those of {self.wanted}: run `brain reindex`"


class IllegalMove(BrainError):
    """A turn cannot make this move from the state it is in."""


class GenerationError(BrainError):
    """The model's provider did not give an answer."""

    status = 502
    type = "provider_error"
    code = "provider_error"


class GenerationTimeout(GenerationError):
    """The model's provider did not answer in time."""

    status = 504
    code = "provider_timeout"


class JournalUnavailable(Unavailable):
    """The journal of running streams cannot be reached."""


class JournalRefused(JournalUnavailable):
    """It answered, and takes nothing: it is full, or only to be read."""


class OtherEmbedder(BrainError):
    """The vectors that are kept were made by another embedder than the one that runs."""

    status = 409
    type = "conflict_error"
    code = "other_embedder"
    remedy = "run `brain reindex`"

    @classmethod
    def of(cls, kept: str, running: str) -> "OtherEmbedder":
        return cls(f"messages are indexed by {kept}, and the embedder is {running}: {cls.remedy}")
