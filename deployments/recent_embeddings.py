"""The vectors of texts that were embedded a moment ago: a message that was understood is indexed seconds later."""

from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b

from domain.embedding import Embedding


class RecentEmbeddings:
    """The last `most` vectors, float32, by their text. One is given out once: a text is indexed once."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, array[float]] = OrderedDict()
        self.spared = 0

    def keep(self, text: str, vector: Embedding) -> None:
        self._kept[_key(text)] = array("f", vector)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    async def embed(
        self, texts: Sequence[str], embed_many: Callable[[Sequence[str]], Awaitable[Sequence[Embedding]]]
    ) -> list[Embedding]:
        """The vectors of `texts` in their order: those that are kept, and the others from `embed_many`."""
        kept = [self._kept.pop(_key(text), None) for text in texts]
        rest = [text for text, vector in zip(texts, kept, strict=True) if vector is None]
        self.spared += len(texts) - len(rest)
        made = iter(await embed_many(rest) if rest else ())
        return [next(made) if vector is None else vector.tolist() for vector in kept]


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
