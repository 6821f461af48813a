"""The registered providers over the configuration: whatever an entry says, the rest of the catalog stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalog_merge import CatalogEntry, InvalidEntry, NeedsDeploy, merge, registrable, stored_form, with_model
from domain.model import Catalog, Model, Provider, parse_catalog

URL = "http://10.0.0.5:9000/v1"
CONFIGURED = parse_catalog(
    {
        "providers": [
            {"name": "acme", "base_url": URL, "key": "${ACME}", "models": [{"id": "small", "price_in": 1}]},
            {
                "name": "local",
                "kind": "vllm",
                "models": [{"id": "llama", "price_in": 1, "price_out": 1, "vllm": {"source": "/models/llama"}}],
            },
        ],
        "routing": {"default": "small"},
    }
)
LLAMA = {"id": "llama", "vllm": {"source": "/models/llama"}}


def entry(_name: str, /, **fields: object) -> CatalogEntry:
    return CatalogEntry(_name, {"base_url": URL, **fields}, 1)


def names(catalog: Catalog) -> list[str]:
    return [provider.name for provider in catalog.providers]


def test_without_entries_the_configuration_stands() -> None:
    merged = merge(CONFIGURED, [])
    assert merged.catalog == CONFIGURED
    assert set(merged.origins.values()) == {"configuration"}


def test_an_entry_takes_the_place_of_the_provider_of_its_name_and_new_ones_follow_before_the_built_in() -> None:
    merged = merge(CONFIGURED, [entry("zeta", models=[{"id": "z"}]), entry("acme", models=[{"id": "big"}])])
    assert names(merged.catalog) == ["acme", "local", "zeta", "scripted"]
    assert merged.catalog.ids() == ["big", "llama", "z", "scripted"]
    assert merged.origins == {
        "acme": "database",
        "local": "configuration",
        "zeta": "database",
        "scripted": "configuration",
    }
    assert merged.catalog.routing == CONFIGURED.routing
    route = merged.catalog.find("big")
    assert route is not None
    assert route.provider.key is None, "an entry replaces a provider whole"


def test_a_removed_provider_is_hidden_but_never_the_built_in() -> None:
    merged = merge(CONFIGURED, [CatalogEntry("acme", None), CatalogEntry("scripted", None), CatalogEntry("gone", None)])
    assert names(merged.catalog) == ["local", "scripted"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"key": "sk-live-1"}, "key"),
        ({"key": "${BRAIN_DATABASE_URL}"}, "key"),
        ({"key": "${RAY_AUTH_TOKEN}"}, "key"),
        ({"key": "${A}", "key_file": "/run/a"}, "key"),
        ({"key_file": "secret"}, "key_file"),
        ({"base_url": "ftp://x/v1"}, "base_url"),
        ({"base_url": None}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http://me:pw@x/v1"}, "base_url"),
        ({"base_url": "http://x/v1?key=1"}, "base_url"),
        ({"base_url": "http://x:99999/v1"}, "base_url"),
        ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"models": [{"id": "auto"}]}, "models.0.id"),
        ({"models": [{"id": "a"}, {"id": "a"}]}, "models.1.id"),
        ({"models": [{"id": "x" * 257}]}, "models.0.id"),
        ({"models": [{"id": "a\nb"}]}, "models.0.id"),
        ({"models": [{"id": "a", "price_in": -1}]}, "models.0.price_in"),
        ({"models": [{"id": "a", "colour": "red"}]}, "models.0.colour"),
        ({"retries": 11}, "retries"),
        ({"name": "other"}, "name"),
    ],
)
def test_an_invalid_entry_is_named_without_its_value_and_takes_nothing_down(
    fields: dict[str, object], param: str | None
) -> None:
    with pytest.raises(InvalidEntry) as refusal:
        registrable("acme", entry("acme", **fields).provider or {}, CONFIGURED)
    assert refusal.value.param == param
    assert refusal.value.status == 422
    assert "sk-live-1" not in str(refusal.value)
    merged = merge(CONFIGURED, [entry("acme", **fields), entry("fine", models=[{"id": "f"}])])
    assert merged.catalog.ids() == ["small", "llama", "f", "scripted"]
    assert list(merged.refused) == ["acme"]
    assert merged.origins["acme"] == "configuration"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "providers", "-x", "x" * 65, "é"])
def test_names_of_providers_are_plain(name: str) -> None:
    with pytest.raises(InvalidEntry) as refusal:
        registrable(name, {"base_url": URL}, CONFIGURED)
    assert refusal.value.param == "name"


def test_a_deployed_vllm_model_changes_its_prices_at_run_time_and_nothing_that_is_deployed() -> None:
    dearer = {"kind": "vllm", "models": [{**LLAMA, "price_in": 2, "price_out": 3, "quality": 0.5}]}
    route = merge(CONFIGURED, [CatalogEntry("local", dearer)]).catalog.find("llama")
    assert route is not None
    assert (route.model.price_out, route.model.quality) == (3, 0.5)
    assert registrable("local", {"kind": "vllm", "models": []}, CONFIGURED).models == []
    for models in (
        [{"id": "llama", "vllm": {"source": "/models/other"}}],
        [{"id": "llama"}],
        [LLAMA, {"id": "new", "vllm": {"source": "/models/new"}}],
    ):
        with pytest.raises(NeedsDeploy, match="needs a deploy"):
            registrable("local", {"kind": "vllm", "models": models}, CONFIGURED)
    with pytest.raises(NeedsDeploy):
        registrable("second", {"kind": "vllm", "models": [LLAMA]}, CONFIGURED)


def test_a_stored_provider_is_the_same_when_it_is_read_again() -> None:
    prices = {"from": "2030-01-01T00:00:00Z", "price_in": 1, "price_out": 2}
    model = Model.model_validate({"id": "m", "prices": [prices], "defaults": {"temperature": 0.1}})
    provider = with_model(Provider(name="acme", base_url=URL), model)
    assert registrable("acme", stored_form(provider), CONFIGURED) == provider
    assert "timeouts" not in stored_form(provider), "what is not set keeps following the defaults"


text = st.text(
    "a0 _-/:.${}é", max_size=5
)  # of all of Unicode, Hypothesis first makes tables: a second on a fresh clone
json = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
fields = st.dictionaries(st.sampled_from(["kind", "base_url", "key", "models", "retries", "name", "x"]), json)


@given(
    st.lists(st.tuples(st.sampled_from(["acme", "local", "new", "scripted", "a b"]), st.none() | fields), max_size=6)
)
def test_whatever_stands_in_the_database_there_is_a_catalog_with_the_built_in_model(
    written: list[tuple[str, dict[str, object] | None]],
) -> None:
    merged = merge(CONFIGURED, [CatalogEntry(name, one) for name, one in dict(written).items()])
    assert "scripted" in names(merged.catalog)
    assert set(merged.origins) == set(names(merged.catalog))
    untouched = {"acme", "local"} - {name for name, _ in written}
    assert untouched <= set(names(merged.catalog))
