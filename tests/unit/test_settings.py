"""Settings come from the environment, and secrets stay out of sight."""

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.cli.options import read_settings
from serve_app.embedded.given import check_vectors
from serve_app.embedded.refusal import Refusal
from serve_app.settings import Settings, variable


def test_every_setting_is_a_variable_with_a_meaning() -> None:
    for name, field in Settings.model_fields.items():
        assert variable(name).startswith("BRAIN_")
        assert field.description


def test_a_secret_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", "postgresql://someone:hunter2@db/brain")
    settings = Settings()
    assert "hunter2" not in repr(settings)
    assert settings.required("database_url").endswith("hunter2@db/brain")


def test_the_admin_url_defaults_to_the_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", "postgresql://a")
    monkeypatch.delenv("BRAIN_DATABASE_ADMIN_URL", raising=False)
    admin_url = Settings().admin_url
    assert admin_url is not None
    assert admin_url.get_secret_value() == "postgresql://a"


def test_a_wrong_value_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_PORT", "many")
    with pytest.raises(Refusal, match="BRAIN_PORT"):
        read_settings()


def test_brain_settings_lists_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_API_KEY", "not-to-be-printed")
    output = CliRunner().invoke(app, ["settings"]).output
    assert all(variable(name) in output for name in Settings.model_fields)
    assert "not-to-be-printed" not in output


@pytest.mark.parametrize(
    "url", ["http://vectors:6333", "qdrant://user:secret@vectors:6333", "lance://host/folder", "pinecone://index.host"]
)
def test_a_wrong_address_of_vectors_is_told_in_one_line_without_its_secret(url: str) -> None:
    with pytest.raises(Refusal, match="BRAIN_VECTORS_URL: ") as refusal:
        check_vectors("BRAIN_VECTORS_URL", url, None)
    assert "\n" not in str(refusal.value) and "secret" not in str(refusal.value)


def test_a_folder_of_vectors_is_taken_as_it_is() -> None:
    check_vectors("BRAIN_VECTORS_URL", "/var/lib/brain/vectors", None)
