"""Products of the built-in catalogue, and which of them have a vector."""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0016_products.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Catalogues are gone then: `brain catalog export` keeps them."""
    op.execute(
        "DROP FUNCTION brain.find_products, brain.known_terms, brain.like_lexemes, brain.unknown_words,"
        " brain.claim_products, brain.waiting_products, brain.query_terms"
    )
    op.execute("DROP TABLE brain.product_vectors, brain.products")
    op.execute("DROP FUNCTION brain.product_words, brain.facet")
    op.execute(FITS.format(down_revision))
