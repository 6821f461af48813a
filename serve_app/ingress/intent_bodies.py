"""What the routes of intents are given."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from domain.intents import MOST_EXAMPLES, TrainingEffort
from domain.slots import MOST_SLOTS, SlotDefinition
from domain.understanding import Example
from serve_app.ingress.bodies import Content, Native

MOST_TEXTS = 256
MOST_EVALUATED = 10_000


def _printable(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("must be printable, without blanks around it")
    return name


Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=4000)]


class IntentPut(Native):
    """An intent as it shall be. `examples`: what people say when they mean it; five or more make a good head."""

    name: Name
    description: Annotated[str, Field(max_length=2000)] = ""
    examples: list[Text] = Field([], max_length=MOST_EXAMPLES)
    slots: list[SlotDefinition] = Field([], max_length=MOST_SLOTS)
    needs_products: bool = False


class ExampleGiven(Native):
    text: Text
    intent: Annotated[str, Field(max_length=128)]

    def example(self) -> Example:
        return Example(self.text, self.intent)


class IntentTrain(Native):
    """`examples`: instead of those of the stored intents. `validation`: what heads are compared by, never learned from.
    `wait`: answer when the training has ended. `effort`: `first` is over within seconds; `best` goes on after that, and
    replaces the first head where it does better. So does `tuned`, which takes minutes of a processor: it tunes the last
    layers of the embedder's model to the intents, and needs the packaged model."""

    examples: Annotated[list[ExampleGiven], Field(min_length=1, max_length=MOST_EXAMPLES)] | None = None
    validation: list[ExampleGiven] = Field([], max_length=MOST_EXAMPLES)
    wait: bool = False
    effort: TrainingEffort = "best"


class IntentEvaluate(Native):
    examples: Annotated[list[ExampleGiven], Field(min_length=1, max_length=MOST_EVALUATED)]


class IntentRollback(Native):
    """`version` 0 is the shared set."""

    version: Annotated[int, Field(ge=0, le=2**31 - 1)]


class IntentClassify(Native):
    text: Content | None = None
    texts: Annotated[list[Content], Field(min_length=1, max_length=MOST_TEXTS)] | None = None

    @model_validator(mode="after")
    def one_of_them(self) -> "IntentClassify":
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either `text` or `texts`")
        return self
