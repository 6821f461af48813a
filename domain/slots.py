"""What an intent wants to know, as data: slots that a tenant defines, and the names that a list slot knows."""

from typing import Literal

from pydantic import Field, model_validator

from domain.model import Strict

Kind = Literal[
    "pattern",
    "list",
    "number",
    "quantity",
    "price",
    "percentage",
    "date",
    "time",
    "email",
    "phone",
    "url",
    "order_number",
    "colour",
    "size",
]
MOST_VALUES = 50_000
MOST_SLOTS = 200


class SlotValue(Strict):
    """A name as an answer should write it, and other ways to say it. `needs_cue`: counts only beside one of the slot's
    cues, because it means something else elsewhere ("free")."""

    value: str = Field(min_length=1, max_length=200)
    synonyms: list[str] = Field([], max_length=50)
    needs_cue: bool = False

    @model_validator(mode="after")
    def bounded_synonyms(self) -> "SlotValue":
        for position, synonym in enumerate(self.synonyms):
            if not 1 <= len(synonym) <= 200:
                raise ValueError(f"synonyms[{position}] of {self.value!r} has {len(synonym)} characters, not 1 to 200")
        return self


class SlotDefinition(Strict):
    """One thing to find in a text.

    `pattern`: a regular expression in RE2's syntax (no look-around, no back-references), for kind `pattern`; its first
    group, if it has one, is the value. `values` and `gazetteer` (the name of a shared list): for kind `list`.
    `fuzzy`: misspelt names count too. `cues`: words that stand near this slot's values ("order", "from"); they decide
    between slots, and with `needs_cue` nothing counts without one. `day_first`: 03/05/2024 is the third of May.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
    kind: Kind
    pattern: str | None = Field(None, min_length=1, max_length=500)
    values: list[SlotValue] = Field([], max_length=MOST_VALUES)
    gazetteer: str | None = Field(None, min_length=1, max_length=64)
    fuzzy: bool = False
    required: bool = False
    cues: list[str] = Field([], max_length=50)
    needs_cue: bool = False
    day_first: bool = False

    @model_validator(mode="after")
    def complete(self) -> "SlotDefinition":
        if (self.kind == "pattern") != (self.pattern is not None):
            raise ValueError(f"slot {self.name}: a pattern belongs to kind `pattern`, and to no other")
        if self.kind == "list" and not self.values and self.gazetteer is None:
            raise ValueError(f"slot {self.name}: a list needs `values`, or the name of a `gazetteer`")
        if self.kind != "list" and (self.values or self.gazetteer is not None):
            raise ValueError(f"slot {self.name}: `values` and `gazetteer` belong to kind `list`")
        if any(not 1 <= len(cue) <= 64 or not cue.strip() for cue in self.cues):
            raise ValueError(f"slot {self.name}: each of `cues` is a word of 1 to 64 characters")
        if not self.cues and (self.needs_cue or any(value.needs_cue for value in self.values)):
            raise ValueError(f"slot {self.name}: `needs_cue` needs `cues`")
        return self
