"""What is looked up for one turn and told with its message: similar exchanges and products, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domain.context.elements import BY_KIND, Account
from domain.context.fence import NOTE, fenced
from domain.context.tokens import TokenCounter

EXCHANGE = 1200  # bytes of an exchange of another time
Looked = Literal["similar", "products"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message and its reply from another time. `score`: how near it is to the present one, a cosine similarity."""

    question: str
    answer: str
    conversation: str
    score: float


@dataclass(frozen=True, slots=True)
class Material:
    """Untrusted texts for one turn, the best first."""

    kind: Looked
    texts: tuple[str, ...]

    @classmethod
    def similar(cls, exchanges: Sequence[Exchange]) -> "Material":
        """Each cut to `EXCHANGE` bytes: what it was about is enough, and what a prompt may cost is known before."""
        told = (f"Question: {_cut(one.question, EXCHANGE // 2)}\nAnswer: {one.answer}" for one in exchanges)
        return cls("similar", tuple(map(_cut, told)))


@dataclass(slots=True)
class Extra:
    """Material as the prompt tells it, empty where it has no room. `left_out`: tokens of what is not told, and why."""

    kind: Looked
    text: str
    tokens: int
    left_out: int = 0
    reason: str = "beyond its share"

    def leave(self, reason: str) -> None:
        self.text, self.tokens, self.left_out, self.reason = "", 0, self.left_out + self.tokens, reason

    def tell(self, account: Account) -> None:
        if self.text:
            account.add(self.kind, self.tokens, True, "for this message")
        if self.left_out:
            account.add(self.kind, self.left_out, False, self.reason)


def fitted(material: Material, budget: int, counter: TokenCounter) -> Extra:
    """As many of the texts, in their order, as fit into the element's share; the first one is cut to it."""
    share = int(budget * BY_KIND[material.kind].share)
    sizes = [counter.count(_marked(material.kind, [text])) for text in material.texts]
    kept: list[str] = []
    for text in material.texts:
        if counter.count(_marked(material.kind, [*kept, text])) > share:
            break
        kept.append(text)
    left_out = sum(sizes[len(kept) :])
    first = material.texts[0]
    while not kept and len(first) > 40:  # a part of the best one is better than none
        first = first[: len(first) // 2]
        if counter.count(_marked(material.kind, [first])) <= share:
            kept = [first]
    if not kept:
        return Extra(material.kind, "", 0, left_out)
    text = _marked(material.kind, kept)
    return Extra(material.kind, text, counter.count(text), left_out)


def _cut(text: str, most: int = EXCHANGE) -> str:
    data = text.encode()
    return text if len(data) <= most else data[:most].decode(errors="ignore") + "…"


def _marked(kind: Looked, texts: list[str]) -> str:
    return NOTE + fenced(kind, "\n\n".join(texts)) + "\n\n"
