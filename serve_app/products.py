"""The catalogue of an ingress replica."""

from asyncpg import Pool

from domain.indexing import SpaceEmbedder
from serve_app.ingress.catalogue import Catalogue
from serve_app.settings import Settings
from serve_app.vectors import vectors
from storage.product_vectors import ProductVectors
from storage.products import PostgresProducts
from storage.spaces import PostgresSpaces


def catalogue(settings: Settings, pool: Pool, embedder: SpaceEmbedder) -> Catalogue:
    """The built-in one, for every tenant."""
    products = PostgresProducts(pool, ProductVectors(PostgresSpaces(pool), embedder, vectors(settings)))
    return Catalogue(products, products)
