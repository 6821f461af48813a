"""`brain catalog`: a tenant's products on a running service."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO
from urllib.parse import quote, urlencode

import typer

from serve_app.cli.calling import Call, Json, run, show
from serve_app.cli.catalog_file import FIELDS, Format, as_row, columns, format_of, read_products
from serve_app.cli.catalog_sending import Sent, send
from serve_app.cli.options import Data
from serve_app.cli.progress import counted
from serve_app.cli.running import ApiKey, Url
from serve_app.embedded.refusal import Refusal

app = typer.Typer(help="A tenant's products: import, search, export.", no_args_is_help=True)
Tenant = Annotated[str | None, typer.Option(metavar="ID", help="Another tenant, with the operator's key.")]
Id = Annotated[str, typer.Argument(help="The shop's own id of a product.")]
SHOWN = ("id", "title", "price", "currency", "in_stock", "category")


@app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(help="CSV (attributes in columns `attributes.colour` …), JSON or JSON lines.")
    ],
    written: Annotated[Format | None, typer.Option("--format", help="Else the file's ending says it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is wrong.")] = False,
    tenant: Tenant = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Store the products of FILE; those that are there are replaced, others stay. It may be repeated, also when it was
    stopped. Lines that are wrong are named, the others are stored; exit code 1 if there were any."""
    lines = list(read_products(file, format_of(file, written)))
    wrong = [(one.number, one.wrong) for one in lines if one.wrong is not None]
    right = [one for one in lines if one.product is not None]
    sent = Sent()
    if not dry_run and right:

        async def work(call: Call) -> Sent:
            with counted("products", 0, len(right)) as advance:
                return await send(call, right, advance)

        sent = run(work, url, api_key, data, tenant)
    for number, said in sorted([*wrong, *sent.wrong]):
        typer.echo(f"{file}:{number}: {said}", err=True)
    failed = len(wrong) + len(sent.wrong)
    if dry_run:
        typer.echo(f"{len(right):,} products are right, {failed:,} are not; nothing was stored")
    else:
        typer.echo(f"{sent.created:,} products are new, {sent.replaced:,} were there already, {failed:,} are wrong")
    if failed:
        raise typer.Exit(1)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What is looked for, in anybody's words.")] = "",
    category: Annotated[str | None, typer.Option(help="With all below it.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attr", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    min_price: Annotated[str | None, typer.Option()] = None,
    max_price: Annotated[str | None, typer.Option()] = None,
    in_stock: Annotated[bool | None, typer.Option("--in-stock/--out-of-stock")] = None,
    sort: Annotated[str | None, typer.Option(help="relevance, price, -price or title")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    tenant: Tenant = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Products that fit, the best first."""
    asked: list[tuple[str, Any]] = [("q", text), ("category", category), ("min_price", min_price)]
    asked += [("max_price", max_price), ("sort", sort), ("limit", limit)]
    asked += [("in_stock", None if in_stock is None else str(in_stock).lower())]
    for one in attribute or ():
        name, separator, value = one.partition("=")
        if not name or not separator or not value:
            raise Refusal(f"--attr {one}: write NAME=VALUE, such as colour=red")
        asked.append((f"attr.{name}", value))
    path = f"/catalog/products?{urlencode([(name, value) for name, value in asked if value not in (None, '')])}"

    async def work(call: Call) -> Any:
        return (await call("GET", path))["data"]

    show(run(work, url, api_key, data, tenant), as_json, SHOWN, "No product fits.")


@app.command("show")
def show_command(
    product: Id, tenant: Tenant = None, url: Url = None, api_key: ApiKey = None, data: Data = None
) -> None:
    """All that is known of a product, as JSON."""

    async def work(call: Call) -> Any:
        return await call("GET", _path(product))

    typer.echo(json.dumps(run(work, url, api_key, data, tenant), indent=2, ensure_ascii=False))


@app.command()
def delete(product: Id, tenant: Tenant = None, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """Remove a product."""

    async def work(call: Call) -> Any:
        return await call("DELETE", _path(product))

    run(work, url, api_key, data, tenant)
    typer.echo(f"{product} is removed")


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; else to stdout.")] = None,
    written: Annotated[Format | None, typer.Option("--format", help="Else the file's ending says it.")] = None,
    tenant: Tenant = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """All products, in a form that `import` takes, in order of their titles."""
    form: Format = "jsonl" if file is None and written is None else format_of(file or Path(), written)
    products = [_given(one) for one in run(_all, url, api_key, data, tenant)]
    if file is None:
        _write(sys.stdout, form, products)
        return
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            _write(out, form, products)
    except OSError as error:
        raise Refusal(f"{file} cannot be written ({error.strerror})") from None
    typer.echo(f"{len(products):,} products in {file}")


async def _all(call: Call) -> list[dict[str, Any]]:
    total = (await call("GET", "/catalog/structure"))["total"]
    found: list[dict[str, Any]] = []
    with counted("products", 0, total) as advance:
        page: dict[str, Any] = {"has_more": True}
        while page["has_more"]:
            after = f"&after={quote(found[-1]['id'], safe='')}" if found else ""
            page = await call("GET", f"/catalog/products?sort=title&limit=100{after}")
            found += page["data"]
            advance(len(page["data"]))
    return found


def _given(product: dict[str, Any]) -> dict[str, Any]:
    kept = {name: product[name] for name in FIELDS if product.get(name) not in (None, {})}
    return {"id": kept.pop("id"), **kept}


def _write(out: TextIO, form: Format, products: list[dict[str, Any]]) -> None:
    if form == "csv":
        rows = csv.DictWriter(out, columns(products))
        rows.writeheader()
        rows.writerows(as_row(one) for one in products)
    elif form == "json":
        json.dump(products, out, indent=2, ensure_ascii=False)
        out.write("\n")
    else:
        out.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in products)


def _path(product: str) -> str:
    return f"/catalog/products/{quote(product, safe='')}"
