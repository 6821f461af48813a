"""Which role may use which route, as the routes themselves say: `python -m serve_app.ingress.matrix [FILE]`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from domain.permissions import ROLES, Permission
from serve_app.ingress.app import create_app
from serve_app.ingress.auth import Needs
from serve_app.ingress.parts import IngressSettings, Parts

FILE = Path(__file__).parents[2] / "docs" / "permissions.md"
HEAD = """# Who may do what

Made by `python -m serve_app.ingress.matrix`; a test fails where it is not what the routes say. A role of a tenant's own
may use a route where it holds the permission that the route names; scopes narrow a key or a token further. A signed-in
user without `conversations:any` sees conversations of its own alone.
"""


class _Bare:
    """As much of the parts as making the application asks for."""

    settings = IngressSettings()
    sockets = None


def application() -> FastAPI:
    """The application with all its routes, and nothing behind them."""
    return create_app(cast(Parts, _Bare()))


def routes(app: FastAPI) -> Iterator[tuple[str, str, list[Permission]]]:
    """Method, path, and the permissions that it names, of each route."""
    for route in _flat(app.routes):
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                yield method, route.path, list(_named(route.dependant))


def matrix(app: FastAPI) -> str:
    """The table as Markdown: a route a line, a role a column."""
    roles = list(ROLES)
    lines = [HEAD, _line(["Route", "Permission", *roles]), _line(["---", "---", *[":-:" for _ in roles]])]
    for method, path, named in sorted(routes(app), key=lambda one: (one[1], one[0])):
        may = ["✓" if all(one in ROLES[role] for one in named) else "" for role in roles]
        lines.append(_line([f"`{method} {path}`", ", ".join(f"`{one}`" for one in named) or "public", *may]))
    lines += ["", "## Roles", "", _line(["Permission", *roles]), _line(["---", *[":-:" for _ in roles]])]
    lines += [_line([f"`{one}`", *["✓" if one in ROLES[role] else "" for role in roles]]) for one in Permission]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _named(dependant: Dependant) -> Iterator[Permission]:
    if isinstance(dependant.call, Needs):
        yield dependant.call.permission
    for each in dependant.dependencies:
        yield from _named(each)


def _flat(found: Iterable[Any]) -> Iterator[Any]:
    for route in found:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _flat(included.routes)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(matrix(application()), encoding="utf-8")
    print(f"wrote {target}")
