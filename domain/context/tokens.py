"""How long a text is to a model."""

from typing import Protocol

MESSAGE_OVERHEAD = 4  # tokens a chat format spends on each message


class TokenCounter(Protocol):
    """Counts as one model's tokenizer does. `name` tells counters apart: equal names count alike."""

    @property
    def name(self) -> str: ...

    def count(self, text: str) -> int: ...


def estimate_tokens(text: str) -> int:
    """A cheap estimate: four bytes of UTF-8 a token, as OpenAI's guidance for English text says."""
    return (len(text.encode()) + 3) // 4


class Estimate:
    """Stands in for a tokenizer that is not at hand."""

    name = "estimate"

    def count(self, text: str) -> int:
        return estimate_tokens(text)


ESTIMATE = Estimate()
