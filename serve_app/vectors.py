"""Where vectors are kept, from the settings."""

from collections.abc import Callable

from domain.vectors import Space, VectorStore
from serve_app.settings import Settings


def vectors(settings: Settings) -> Callable[[Space], VectorStore]:
    """Opens the vectors of a space; the backend's library is loaded when the first is opened."""
    url = settings.vectors_url or str(settings.data_folder / "vectors")
    key = settings.vectors_key.get_secret_value() if settings.vectors_key else None

    def opened(space: Space) -> VectorStore:
        from storage.vectors import open_vectors

        return open_vectors(url, space, key)

    return opened
