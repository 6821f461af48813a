"""A pattern from examples of a code: "A-1234" and "B-77" are `[A-Za-z]-\\d{1,5}`."""

import re
from collections.abc import Collection

_RUN = re.compile(r"\d+|[^\W\d_]+|.", re.DOTALL)
_SPECIAL = frozenset(r"\.+*?()|[]{}^$")
MOST_SHAPES = 8


def pattern(codes: Collection[str]) -> str | None:
    """Matches codes of the same shapes: runs of digits and of letters, and the signs between. None for too many shapes.

    What is alike in all codes of a shape stays, except digits. A length that is the same in all stays too; where two
    lengths occur, one more and one less count too; where more do, any from half the least to twice the most.
    """
    shapes: dict[tuple[str, ...], list[list[str]]] = {}
    for code in codes:
        runs = _RUN.findall(code)
        shapes.setdefault(tuple(_kind(run) for run in runs), []).append(runs)
    if not shapes or len(shapes) > MOST_SHAPES:
        return None
    parts = ["".join(map(_part, zip(*runs, strict=True))) for runs in shapes.values()]
    return "|".join(sorted(parts, key=len, reverse=True))


def _kind(run: str) -> str:
    return "9" if run[0].isdecimal() else "a" if run[0].isalpha() else run


def _part(runs: tuple[str, ...]) -> str:
    kind = _kind(runs[0])
    if kind not in ("9", "a"):
        return _literal(kind)
    if kind == "a" and len(set(runs)) == 1:
        return _literal(runs[0])
    lengths = {len(run) for run in runs}
    least, most = min(lengths), max(lengths)
    if len(lengths) > 2:
        least, most = (least + 1) // 2, min(2 * most, 200)
    elif len(lengths) > 1:
        least, most = max(1, least - 1), most + 1
    counted = f"{{{least}}}" if least == most else f"{{{least},{most}}}"
    return (r"\d" if kind == "9" else "[A-Za-z]") + counted


def _literal(said: str) -> str:
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in said)
