"""What an extraction and a large list cost in time and memory."""

import random
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.entities.extractor import Extractor
from deployments.entities.gazetteer import Gazetteer
from domain.slots import SlotDefinition, SlotValue
from domain.understanding import EntityExtractor

_SYLLABLES_TEXT = (
    "ba be bo ca da di do el fa fi ga go ha ka ki la le lo ma mi mo na ni no pa pe ra ri ro sa se ta ti to va vi xa zu"
)
_SYLLABLES = _SYLLABLES_TEXT.split()
_KINDS_TEXT = "shirt shoe jacket lamp chair table bottle keyboard mouse camera phone watch bag sofa knife carpet"
_KINDS = _KINDS_TEXT.split()


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds a text: median and 99th percentile."""

    median: float
    slow: float


@dataclass(frozen=True, slots=True)
class ListCost:
    """`building`: seconds; `memory`: MiB that stay; `found`: share of the names found that texts say, one in four of
    these misspelt in one letter."""

    names: int
    building: float
    memory: float
    cost: Cost
    found: float


def per_text(extractor: EntityExtractor, texts: Sequence[str]) -> Cost:
    """Each text once, after a warm-up; processor time of this thread, which a busy machine does not change."""
    for text in texts[:50]:
        extractor.extract(text)
    taken = []
    for text in texts:
        began = time.thread_time()
        extractor.extract(text)
        taken.append((time.thread_time() - began) * 1000)
    taken.sort()
    return Cost(taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)])


def large_list(names: int, seed: int, texts: int = 2000) -> ListCost:
    """A catalogue of made-up product names of three words, asked for in texts of about twelve words."""
    chance = random.Random(seed)
    values = [SlotValue(value=name) for name in _names(names, chance)]
    began = time.thread_time()
    products = Gazetteer(values)
    building = time.thread_time() - began
    tracemalloc.start()
    kept = Gazetteer(values)
    memory = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    del kept
    slot = SlotDefinition(name="product", kind="list", gazetteer="products")
    extractor = Extractor([slot], {"products": products})
    asked = [_asked(chance.choice(values).value, chance) for _ in range(texts)]
    found = sum(name in [entity.value for entity in extractor.extract(text)] for name, text in asked)
    return ListCost(names, building, memory, per_text(extractor, [text for _, text in asked]), found / texts)


def _names(count: int, chance: random.Random) -> list[str]:
    brands = sorted({"".join(chance.choices(_SYLLABLES, k=3)).title() for _ in range(max(10, count // 20))})
    names: set[str] = set()
    while len(names) < count:
        model = "".join(chance.choices(_SYLLABLES, k=4)).title()
        names.add(f"{chance.choice(brands)} {model} {chance.choice(_KINDS)}")
    return sorted(names)


def _asked(name: str, chance: random.Random) -> tuple[str, str]:
    said = name.lower()
    if chance.random() < 0.25:
        place = chance.randrange(said.index(" ") + 2, said.rindex(" ") - 1)
        said = said[:place] + said[place + 1 :]
    return name, f"hello, i would like to know whether the {said} is in stock please"
