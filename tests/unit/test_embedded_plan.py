"""What `brain up` was asked for is checked before anything starts."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.model import parse_catalog
from serve_app.embedded.plan import from_file, from_flags
from serve_app.embedded.refusal import Refusal
from serve_app.embedded.serve_config import local_config


def test_flags_become_a_catalog_without_the_key() -> None:
    catalog, environment = from_flags("http://10.0.0.5:9000/v1/", "sk-1", ["gpt-*", "small"])
    assert environment == {"BRAIN_PROVIDER_KEY": "sk-1"}
    assert "sk-1" not in str(catalog)
    parsed = parse_catalog(catalog)
    assert parsed.routing.default == "small"
    assert parsed.find("gpt-9") is not None


@pytest.mark.parametrize("url", ["", "10.0.0.5/v1", "ftp://host/v1", "http:///v1", "http://host/", "http://host/api"])
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(Refusal, match="--provider-url"):
        from_flags(url, None, ["m"])


def test_a_provider_needs_a_model() -> None:
    with pytest.raises(Refusal, match="--model"):
        from_flags("http://host/v1", None, [])


CONFIG = """
providers:
  - {name: acme, base_url: "http://acme/v1", key: "${ACME_KEY}", models: [{id: small}]}
routing: {default: small}
"""


def test_a_config_file_needs_the_variables_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "brain.yaml"
    path.write_text(CONFIG)
    monkeypatch.delenv("ACME_KEY", raising=False)
    with pytest.raises(Refusal, match="ACME_KEY"):
        from_file(path)
    monkeypatch.setenv("ACME_KEY", "k")
    assert from_file(path)["routing"] == {"default": "small"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: [", "YAML"),
        ("- a", "providers"),
        ("provider: []", "provider"),
        (CONFIG.replace("${ACME_KEY}", "sk-literal"), r"\$\{NAME\}"),
        (CONFIG.replace("http://acme", "acme"), "base_url"),
    ],
)
def test_a_wrong_config_file_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "brain.yaml"
    path.write_text(text)
    with pytest.raises(Refusal, match=words) as refusal:
        from_file(path)
    assert "\n" not in str(refusal.value)
    assert "sk-literal" not in str(refusal.value)


def test_the_catalog_reaches_every_deployment_that_takes_one() -> None:
    config = local_config(9000, {"providers": []})
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["http_options"]["port"] == 9000
    deployments = {d["name"]: d for d in config["applications"][0]["deployments"]}
    models = {"IntentClassifier", "IntentTrainer", "Embedder", "HostedLLM", "Indexer", "Relay", "Tools"}
    assert set(deployments) == {"Ingress", "ConversationHost"} | models
    takers = {name for name, d in deployments.items() if d.get("user_config") == {"providers": []}}
    assert takers == {"Ingress", "ConversationHost", "HostedLLM"}


@pytest.mark.parametrize("since", ["2027-01-01", "2027-01-01T00:00:00Z", "'2027-01-01T01:00:00+01:00'"])
def test_a_files_dates_go_on_as_json(tmp_path, since):
    path = tmp_path / "providers.yaml"
    path.write_text(
        "providers: [{name: a, base_url: 'http://x/v1', models: [{id: m, prices: "
        f"[{{from: {since}, price_in: 1, price_out: 2}}]}}]}}]"
    )
    catalog = parse_catalog(json.loads(json.dumps(from_file(path))))
    [prices] = catalog.find("m").model.prices
    assert prices.since == datetime(2027, 1, 1, tzinfo=UTC)
