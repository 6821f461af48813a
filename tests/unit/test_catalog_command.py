"""`brain catalog` against a real ingress."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.cli.catalog_file import read_products
from serve_app.embedded.refusal import Refusal
from tests.unit.test_ingress_catalog import Shop, shop  # noqa: F401  (a fixture)

CSV = '''id,title,price,currency,stock,available,attributes.colour,attributes.size
tee-s,Red T-shirt,19.99,USD,3,,red,S
tee-m,"Red T-shirt, ""the best""",21,USD,0,,red,M
bad-1,Lamp,$5,USD,,,,
cap,Cap,,,,yes,blue,
bad-2,,1,USD,,,,
bad-3,Chair,1,USD,many,,,
'''
WRONG = [
    (4, "price: '$5' is no number: write 19.99, and the currency in `currency`"),
    (6, "title: Field required"),
    (7, "stock: Input should be a valid integer"),
]


async def run(shop: Shop, *arguments: str) -> Result:  # noqa: F811
    environment = {"BRAIN_URL": shop.world.url, "BRAIN_API_KEY": shop.admin["authorization"].split()[1]}
    return await asyncio.to_thread(CliRunner().invoke, app, ["catalog", *arguments], env=environment)


async def test_a_file_is_imported_searched_and_exported(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "shop.csv"
    file.write_text(CSV)
    dry = await run(shop, "import", str(file), "--dry-run")
    assert dry.exit_code == 1 and "3 products are right, 3 are not; nothing was stored" in dry.stdout
    assert (await shop.call("GET", "structure"))["total"] == 0

    done = await run(shop, "import", str(file))
    assert done.exit_code == 1
    assert "3 products are new, 0 were there already, 3 are wrong" in done.stdout
    for line, said in WRONG:
        assert f"{file}:{line}: {said}" in done.stderr
    assert (await shop.call("GET", "products/cap"))["available"] is True

    found = await run(shop, "search", "red shirt", "--attr", "size=M", "--json")
    assert [one["id"] for one in json.loads(found.stdout)] == ["tee-m"]
    assert "Red T-shirt" in (await run(shop, "search", "--max-price", "20")).stdout
    assert (await run(shop, "search", "xylophone")).stdout == "No product fits.\n"
    assert json.loads((await run(shop, "show", "tee-s")).stdout)["price"] == 19.99

    for form in ("csv", "json", "jsonl"):
        out = tmp_path / f"out.{form}"
        assert (await run(shop, "export", str(out))).stdout == f"3 products in {out}\n"
        again = await run(shop, "import", str(out))
        assert again.exit_code == 0, again.output
        assert "0 products are new, 3 were there already, 0 are wrong" in again.stdout
    assert len((await run(shop, "export")).stdout.splitlines()) == 3

    assert (await run(shop, "delete", "cap")).stdout == "cap is removed\n"
    assert isinstance((await run(shop, "show", "cap")).exception, Refusal)


async def test_many_products_go_in_several_requests(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"id": f"p{n}", "title": "x" * 400}) + "\n" for n in range(1201)))
    done = await run(shop, "import", str(file))
    assert done.exit_code == 0 and "1,201 products are new" in done.stdout
    assert (await shop.call("GET", "structure"))["total"] == 1201
    assert "1,201 of 1,201" in done.stderr


def lines(path: Path, written: Any, text: str) -> list[tuple[int, str | None]]:
    path.write_text(text)
    return [(one.number, one.wrong) for one in read_products(path, written)]


def test_lines_of_json_are_counted_where_a_product_begins(tmp_path: Path) -> None:
    text = '[\n {"id": "a", "title": "A"},\n\n {"id": "b",\n "title": 1},\n {"id": "c", "title": "C"}]'
    assert lines(tmp_path / "x", "json", text) == [(2, None), (4, "title: Input should be a valid string"), (6, None)]
    assert lines(tmp_path / "x", "json", "[]") == []
    text = '{"id": "a", "title": "A"}\n\n{\n'
    found = lines(tmp_path / "x", "jsonl", text)
    assert found[0] == (1, None) and found[1][0] == 3 and "not valid JSON" in str(found[1][1])


def test_cells_of_csv_may_hold_lines_and_rows_must_be_whole(tmp_path: Path) -> None:
    text = 'id,title,description\na,A,"two\nlines"\nb,B\nc,C,x,y\n,,\n'
    found = lines(tmp_path / "x", "csv", text)
    assert found == [
        (3, None),
        (4, "has not 3 cells, as the first line has"),
        (5, "has not 3 cells, as the first line has"),
    ]


@pytest.mark.parametrize(
    ("written", "text", "words"),
    [
        ("csv", "id,title,colour\na,A,red\n", "there is no column 'colour'"),
        ("csv", "id,attributes\na,A\n", "there is no column 'attributes'"),
        ("csv", "title\nA\n", "the column 'id' is missing"),
        ("csv", "", "the column 'id' is missing"),
        ("csv", 'id,title\na,"A\n', "not valid CSV"),
        ("json", '{"id": "a"}', "must hold a JSON array"),
        ("json", '[{"id": "a", "title": "A"} {}]', "x:1: is not valid JSON"),
        ("json", '[\n{"id": ', "x:2: is not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, written: Any, text: str, words: str) -> None:
    with pytest.raises(Refusal, match="x") as refused:
        lines(tmp_path / "x", written, text)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot be read"):
        list(read_products(tmp_path / "nothing", "csv"))
    (tmp_path / "x").write_bytes(b"id,title\n\xff,\xfe\n")
    with pytest.raises(Refusal, match="not text in UTF-8"):
        list(read_products(tmp_path / "x", "csv"))


async def test_a_file_of_no_known_kind_needs_a_word(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "shop.txt"
    file.write_text('{"id": "a", "title": "A"}\n')
    assert "say with --format" in str((await run(shop, "import", str(file))).exception)
    assert (await run(shop, "import", str(file), "--format", "jsonl")).exit_code == 0
