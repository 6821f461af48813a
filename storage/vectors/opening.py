"""A vector store from its address; a backend's library is imported when it is chosen."""

from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from domain.vectors import Space, VectorStore

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KINDS = "a folder, lance:///PATH, qdrant://HOST:PORT, qdrants://HOST, qdrant+local:///PATH or pinecone://INDEX-HOST"


def open_vectors(url: str, space: Space, key: str | None = None) -> VectorStore:
    """The store that `url` names: KINDS. `key`: of a Qdrant or Pinecone project. Nothing is reached yet.

    qdrant:// speaks plain HTTP, qdrants:// TLS; pinecone:// always TLS. `pinecone+http://` and `qdrant://` with a key
    are for this machine only: neither carries a key over a network. Raises ValueError, which never shows the URL.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("", "lance"):
        from storage.vectors.lance import LanceVectors

        return LanceVectors(Path(url) if not scheme else _path(urlsplit(url)), space)
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the vectors' URL carries no user, password or query: a key is given apart")
    if scheme.startswith("qdrant"):
        return _qdrant(parts, space, key)
    if scheme in ("pinecone", "pinecone+http"):
        return _pinecone(parts, space, key)
    raise ValueError(f"the vectors' URL must be {KINDS}")


def _qdrant(parts: SplitResult, space: Space, key: str | None) -> VectorStore:
    try:
        from qdrant_client import AsyncQdrantClient
    except ImportError:
        raise ValueError("Qdrant needs the client: pip install 'chat-brain[qdrant]'") from None

    from storage.vectors.qdrant import QdrantVectors

    if parts.scheme == "qdrant+local":
        return QdrantVectors(AsyncQdrantClient(path=str(_path(parts))), space, local=True)
    if parts.scheme not in ("qdrant", "qdrants") or not parts.hostname:
        raise ValueError(f"the vectors' URL must be {KINDS}")
    secure = parts.scheme == "qdrants"
    if key and not secure and parts.hostname not in LOOPBACK:
        raise ValueError("a key goes to Qdrant over TLS only: qdrants://HOST")
    client = AsyncQdrantClient(
        host=parts.hostname,
        port=parts.port or 6333,
        https=secure,
        api_key=key,
        timeout=20,
        check_compatibility=False,  # it would ask the server now, and wait
    )
    return QdrantVectors(client, space)


def _pinecone(parts: SplitResult, space: Space, key: str | None) -> VectorStore:
    from storage.vectors.pinecone import PineconeVectors

    if not parts.hostname or parts.path.strip("/"):
        raise ValueError("the vectors' URL must be pinecone://INDEX-HOST")
    if not key:
        raise ValueError("Pinecone needs a key")
    if parts.scheme == "pinecone+http":
        if parts.hostname not in LOOPBACK:
            raise ValueError("a key goes to Pinecone over TLS only: pinecone://INDEX-HOST")
        return PineconeVectors(f"http://{parts.netloc}", key, space)
    return PineconeVectors(f"https://{parts.netloc}", key, space)


def _path(parts: SplitResult) -> Path:
    if parts.netloc or not parts.path:
        raise ValueError("a folder's URL has three slashes: lance:///PATH")
    return Path(unquote(parts.path))
