"""Products in a file: CSV, JSON or JSON lines, as a shop exports them."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from domain.given_products import GivenWithId, given_product
from domain.products import Product
from serve_app.embedded.refusal import Refusal

Format = Literal["csv", "json", "jsonl"]
FIELDS = tuple(GivenWithId.model_fields)
ATTRIBUTES = "attributes."
_ENDS: dict[str, Format] = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_YES, _NO = {"true", "yes", "1"}, {"false", "no", "0"}


@dataclass(frozen=True, slots=True)
class Line:
    """A product of a file, or why it is none. `number`: of the line on which it begins."""

    number: int
    product: Product | None
    wrong: str | None = None


def format_of(path: Path, asked: Format | None) -> Format:
    """Raises `Refusal` where the name does not tell."""
    found = asked or _ENDS.get(path.suffix.lower())
    if found is None:
        raise Refusal(f"{path}: say with --format whether it is csv, json or jsonl")
    return found


def read_products(path: Path, written: Format) -> Iterator[Line]:
    """Raises `Refusal` where the file as a whole cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="" if written == "csv" else None) as file:
            values = {"csv": _csv, "json": _json, "jsonl": _jsonl}[written]
            for number, value in values(path, file):
                yield value if isinstance(value, Line) else _checked(number, value)
    except OSError as error:
        raise Refusal(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise Refusal(f"{path} is not text in UTF-8") from None
    except csv.Error as error:
        raise Refusal(f"{path} is not valid CSV: {error}") from None


def as_json(product: Product) -> dict[str, Any]:
    """As the API takes it; the price as text, so that no digit is lost."""
    given = product.model_dump(include={*FIELDS}, exclude_none=True)
    return {**given, "price": str(product.price)} if product.price is not None else given


def columns(products: Iterable[dict[str, Any]]) -> list[str]:
    """Of a CSV file that holds these."""
    names = sorted({name for one in products for name in one.get("attributes", {})})
    return [*(field for field in FIELDS if field != "attributes"), *(ATTRIBUTES + name for name in names)]


def as_row(product: dict[str, Any]) -> dict[str, Any]:
    """Of a CSV file."""
    row = {name: value for name, value in product.items() if name != "attributes"}
    if "available" in row:
        row["available"] = "yes" if row["available"] else "no"
    return row | {ATTRIBUTES + name: value for name, value in product.get("attributes", {}).items()}


def _checked(number: int, value: Any) -> Line:
    try:
        return Line(number, given_product(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        return Line(number, None, f"{where}: {said}" if where else said)


def _csv(path: Path, file: Any) -> Iterator[tuple[int, Any]]:
    rows = csv.DictReader(file, strict=True)
    names = [name.strip() for name in rows.fieldnames or ()]
    unknown = [name for name in names if name not in FIELDS and not name.startswith(ATTRIBUTES)]
    if "attributes" in names or unknown:
        wrong = "attributes" if "attributes" in names else unknown[0]
        raise Refusal(
            f"{path}:1: there is no column {wrong!r}; there are {', '.join(FIELDS[:-2])}, attributes.NAME, id"
        )
    for missing in ("id", "title"):
        if missing not in names:
            raise Refusal(f"{path}:1: the column {missing!r} is missing")
    rows.fieldnames = names
    for row in rows:
        if None in row or None in row.values():
            yield rows.line_num, Line(rows.line_num, None, f"has not {len(names)} cells, as the first line has")
        elif any(cell.strip() for cell in row.values()):
            yield rows.line_num, _of_cells(row)


def _of_cells(row: dict[str, str]) -> dict[str, Any]:
    """Empty cells are left out; what is no number or truth stays as it is, and is refused by its field."""
    cells = {name: cell.strip() for name, cell in row.items() if cell.strip()}
    value: dict[str, Any] = {name: cell for name, cell in cells.items() if not name.startswith(ATTRIBUTES)}
    value["attributes"] = {
        name.removeprefix(ATTRIBUTES): cell for name, cell in cells.items() if name.startswith(ATTRIBUTES)
    }
    if value.get("stock", "").isdecimal():
        value["stock"] = int(value["stock"])
    if (said := value.get("available", "").lower()) in _YES | _NO:
        value["available"] = said in _YES
    return value


def _jsonl(path: Path, file: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, Line(number, None, f"is not valid JSON: {error.msg}")


def _json(path: Path, file: Any) -> Iterator[tuple[int, Any]]:
    """The entries of an array, each with the line on which it begins."""
    text, decoder = file.read(), json.JSONDecoder()
    place, line, seen = _blank(text, 0), 1, 0
    if text[place : place + 1] != "[":
        raise Refusal(f"{path} must hold a JSON array of products")
    place = _blank(text, place + 1)
    try:
        while text[place : place + 1] != "]":
            line, seen = line + text.count("\n", seen, place), place
            value, place = decoder.raw_decode(text, place)
            yield line, value
            place = _blank(text, place)
            if text[place : place + 1] == ",":
                place = _blank(text, place + 1)
            elif text[place : place + 1] != "]":
                raise json.JSONDecodeError("expected a comma", text, place)
    except json.JSONDecodeError as error:
        raise Refusal(f"{path}:{error.lineno}: is not valid JSON: {error.msg}") from None


def _blank(text: str, place: int) -> int:
    while text[place : place + 1].isspace():
        place += 1
    return place
