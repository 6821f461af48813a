"""Products on a running Brain: imported by the command line, found by words at once and by meaning soon after."""

import csv
import subprocess

import pytest

from serve_app.cli.catalog_file import as_json, as_row, columns
from serve_app.cli.seed_products import FINDS, PRODUCTS
from tests.conftest import wait_until
from tests.e2e.brain import BRAIN, clean_environment

pytestmark = pytest.mark.cluster


def found(brain, query):
    answer = brain.http.get(f"/api/v1/catalog/products?{query}")
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


def waiting(brain):
    [(rows,)] = brain.sql("SELECT count(*) FROM brain.product_vectors WHERE space = ''")
    return rows


def test_a_shop_is_imported_and_found_by_words_and_by_meaning(brain, other_tenant, tmp_path):
    file = tmp_path / "shop.csv"
    given = [as_json(one) for one in PRODUCTS]
    with file.open("w", newline="") as out:
        rows = csv.DictWriter(out, columns(given))
        rows.writeheader()
        rows.writerows(as_row(one) for one in given)
    command = [BRAIN, "catalog", "import", str(file), "--data", str(brain.data)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(PRODUCTS)} products are new" in done.stdout

    for query, id in FINDS.items():
        assert found(brain, query.replace(" ", "%20"))[0] == id
    wait_until(lambda: waiting(brain) == 0, 60, what="the vectors of products")
    wait_until(lambda: "boots-hiking-brown" in str(found(brain, "q=footwear%20against%20puddles")[:5]), 30)
    for query, id in FINDS.items():
        assert found(brain, query.replace(" ", "%20"))[0] == id
    assert other_tenant.get("/api/v1/catalog/products?q=boots").json()["data"] == []
    assert other_tenant.get("/api/v1/catalog/products/voucher").status_code == 404

    for one in PRODUCTS:
        assert brain.http.delete(f"/api/v1/catalog/products/{one.id}").status_code == 200
    assert found(brain, "q=footwear%20against%20puddles") == []
    wait_until(lambda: brain.sql("SELECT count(*) FROM brain.product_vectors")[0][0] == 0, 60, what="their removal")
