"""How often other people's texts are taken to misspell a name: bank customers' and assistants' users', none in a shop.

BANKING77 (Casanueva et al. 2020, arXiv:2003.04807) and CLINC150 (Larson et al. 2019, arXiv:1909.02027), training parts.
"""

import csv
import json
from collections import Counter
from pathlib import Path

from deployments.entities.extractor import Extractor
from domain.slots import SlotDefinition, SlotValue

_NAMES = """
    Gold Platinum Premium Freemium Standard Silver Basic Paris London Rome Seattle Munich Liverpool Dublin
    Detroit Toronto Berlin Madrid Lamp Sofa Table Chair Bottle Shirt Jeans Boots Sandals Sneakers Keyboard Mouse
    Monitor Headphones Camera Phone Watch Backpack Blender Kettle Toaster Vacuum Carpet Curtain Pillow Blanket
    Jacket Sweater Dress Skirt Socks Gloves Scarf Belt Wallet Hat
"""
NAMES = _NAMES.split()


def texts(folder: Path) -> list[str]:
    """Raises OSError where they are missing."""
    with (folder / "banking77" / "train.csv").open(encoding="utf-8", newline="") as lines:
        banking = [row["text"] for row in csv.DictReader(lines)]
    return banking + [text for text, _ in json.loads((folder / "clinc150" / "data_full.json").read_text())["train"]]


def misread(said: list[str]) -> Counter[tuple[str, str]]:
    """What was said and the name it was taken for, where the two differ in more than case."""
    shop = Extractor(
        [
            SlotDefinition(name="name", kind="list", values=[SlotValue(value=name) for name in NAMES], fuzzy=True),
            SlotDefinition(name="colour", kind="colour", fuzzy=True),
        ]
    )
    found = ((entity.text.lower(), str(entity.value)) for text in said for entity in shop.extract(text))
    return Counter((text, name) for text, name in found if text != name.lower() and text != "gray")
