"""Lists made of a catalogue."""

from deployments.entities.catalogue import lists
from deployments.entities.gazetteer import Gazetteer
from tests.unit.understanding.test_entities import extractor, found, slot

PRODUCTS = [
    {
        "title": "Acme TrailRunner 5 – Men's Shoe (Blue)",
        "category": "Shoes",
        "attributes": {"material": "Mesh", "weight": 300},
    },
    {"title": "Acme Lamp, red", "category": "Lamps", "attributes": {"material": ["Steel", "Glass"]}},
    {"title": "Acme Lamp, green", "category": "Lamps", "attributes": None},
    {"title": "Sofa - a soft one"},
    {"title": "x" * 201},
    {"title": "😀"},
]


def test_products_categories_and_attributes_are_lists() -> None:
    made = {name: [(value.value, value.synonyms) for value in values] for name, values in lists(PRODUCTS).items()}
    assert made == {
        "products": [
            ("Acme TrailRunner 5 – Men's Shoe (Blue)", ["Acme TrailRunner 5"]),
            ("Acme Lamp, red", []),
            ("Acme Lamp, green", []),
            ("Sofa - a soft one", []),
            ("Acme Lamp", []),
        ],
        "categories": [("Shoes", []), ("Lamps", [])],
        "material": [("Mesh", []), ("Steel", []), ("Glass", [])],
    }


def test_products_are_found_by_what_people_call_them() -> None:
    shared = {name: Gazetteer(values) for name, values in lists(PRODUCTS).items()}
    shop = extractor(slot("product", "list", gazetteer="products"), gazetteers=shared)
    said = shop.extract("one acme trail runner 5, an acme lamp, and the Acme lamp green")
    assert [(text, value) for _, text, value in found(said)] == [
        ("acme trail runner 5", "Acme TrailRunner 5 – Men's Shoe (Blue)"),
        ("acme lamp", "Acme Lamp"),
        ("Acme lamp green", "Acme Lamp, green"),
    ]


def test_an_empty_catalogue_has_no_lists() -> None:
    assert lists([]) == {}
