"""`POST /v1/embeddings`, in OpenAI's shape."""

import base64
from array import array

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.embedding import EmbedderInfo, Embedding
from domain.model import AUTO
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import Embeds
from serve_app.ingress.bodies import checked
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem, unknown_model
from serve_app.ingress.openai_bodies import EmbeddingCreate
from serve_app.ingress.parts import Parts, check_feature, parts_of
from serve_app.ingress.service_answers import EmbeddingList

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])
MOST, AT_ONCE = 2048, 256  # texts in a request, and in one call of the embedder


@router.post(
    "/embeddings",
    response_model=None,
    responses={200: {"model": EmbeddingList}},
    openapi_extra=takes(EmbeddingCreate),
)
async def create_embeddings(request: Request, who: Embeds) -> Response:
    """Embed one or several texts. `model` is `auto` or the name of the embedder."""
    body = checked(EmbeddingCreate, await request.body(), status=400)
    await check_feature(request, who.tenant, "embeddings")
    parts = parts_of(request)
    model = await _embedder(parts)
    name = model.name
    if body.model not in (AUTO, name, name.rsplit("/", 1)[-1]):
        raise unknown_model(body.model)
    if body.dimensions not in (None, model.dimensions):
        raise Problem(400, f"dimensions: this model has {model.dimensions}", "dimensions")
    texts = _texts(body)
    vectors: list[Embedding] = []
    for start in range(0, len(texts), AT_ONCE):
        vectors += await parts.embedder.embed_many(texts[start : start + AT_ONCE])
    tokens = await parts.embedder.count_tokens(texts)
    if (entry := visit_of(request.scope).entry) is not None:
        entry.end(tokens)
    encode = _base64 if body.encoding_format == "base64" else _floats
    data = [{"object": "embedding", "index": i, "embedding": encode(vector)} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer({"object": "list", "data": data, "model": name, "usage": usage})


async def _embedder(parts: Parts) -> EmbedderInfo:
    if parts.embedding_model is None:
        parts.embedding_model = await parts.embedder.describe()
    return parts.embedding_model


def _texts(body: EmbeddingCreate) -> list[str]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or len(texts) > MOST:
        raise Problem(400, f"input: send 1 to {MOST} texts", "input")
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) < len(texts):
        raise Problem(400, "input: arrays of tokens are not supported; send the text itself", "input")
    if not all(strings):
        raise Problem(400, "input: must not hold an empty text", "input")
    return strings


def _floats(vector: Embedding) -> list[float]:
    return [float(one) for one in vector]


def _base64(vector: Embedding) -> str:
    """float32, little-endian, as the official client decodes it."""
    numbers = array("f", vector)
    return base64.b64encode(numbers.tobytes()).decode()
