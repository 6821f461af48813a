"""docs/operations.md has a line for each setting."""

from serve_app.settings import Settings, variable
from tests.e2e.brain import ROOT


def test_each_setting_stands_in_the_table():
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [variable(name) for name in Settings.model_fields if f"| `{variable(name)}` |" not in page] == []
