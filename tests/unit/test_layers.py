"""Who may import whom: the rule of the architecture, read from the sources."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {
    "domain": set(),
    "storage": {"domain"},
    "deployments": {"domain"},
    "actors": {"domain"},
    "adapters": {"domain"},
    "serve_app": {"domain", "storage", "deployments", "actors", "adapters"},
}
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_layer_imports_only_what_it_may(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    ours = imported(path) & (LAYERS.keys() | {"tests", "benchmarks"})
    assert ours <= LAYERS[layer] | {layer}


@pytest.mark.parametrize("path", [f for f in FILES if "domain" in f.parts], ids=lambda path: path.stem)
def test_the_domain_knows_the_standard_library_and_pydantic_alone(path: Path) -> None:
    assert imported(path) <= set(sys.stdlib_module_names) | {"pydantic", "domain"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_ray_at_import(path: Path) -> None:
    tree = ast.parse(path.read_text())
    calls = [
        node.value.func
        for node in tree.body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
    ]
    assert not [call for call in calls if isinstance(call.value, ast.Name) and call.value.id in ("ray", "serve")]
