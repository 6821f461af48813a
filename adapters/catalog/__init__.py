"""Catalogues of products that other services keep."""
