"""Made-up conversations of a shop: questions of a user, and replies, of lengths as chats have them."""

import random
from collections.abc import Iterator

GOODS = (
    *("lamp", "table", "kettle", "backpack", "jacket", "tent", "printer", "monitor"),
    *("bicycle", "blender", "rug", "mirror", "camera", "headset", "shelf"),
)
ASKED = (
    "Do you have a {good} that is cheaper than the one we looked at?",
    "How long does the delivery of a {good} take?",
    "Can I return a {good} that I have used once?",
    "What is the difference between the two {good}s?",
    "Is the {good} in stock at the moment?",
    "Which {good} would you take for a small flat?",
    "Does the {good} come with a guarantee?",
    "And what about the {good}, is it any good?",
    "Could you tell me more about the {good} with the blue label?",
    "The page of the {good} says it weighs {n} kg, is that right?",
    "Someone told me that the {good} breaks easily. Is there anything to that?",
    "Ok, thanks. And is there a set of {n} of the {good}?",
    "I saw a {good} for {n} euros elsewhere, do you match prices?",
    "Let us look at the {good} again, which colours are there?",
    "Hm. I am not sure about the {good}, what do others say about it?",
)
STATED = (
    "I measured the hall again, it is {n}.{m} m long.",
    "My neighbour {name} has the {good} and says it hums.",
    "I paid {n}0 euros for my last {good}.",
    "We had a {good} before, it broke after {n} months.",
    "I called on the {n}th and spoke to {name}.",
    "Our old {good} was {n} cm deep.",
    "I like the {good} but my sister {name} does not.",
    "In the shop of {name} I saw {n} of them.",
    "I want the {good} for the room upstairs, it has {n} square metres.",
    "The {good} that I returned was number {n}{m}{n}{m}.",
)
NAMES = ("Petra", "Jonas", "Ming", "Aisha", "Carlos", "Ingrid", "Pavel", "Yuki", "Fatou", "Bruno", "Elif", "Sanjay")
_TEXT = (
    "the model is a good choice for most rooms and it ships within a few days while the larger one needs more space but"
    " lasts longer and can be returned like everything else as long as the box is whole customers like its finish and"
    " say that it is easy to put together with the tools that come with it"
)
WORDS = _TEXT.split()


def question(random_: random.Random) -> str:
    """A question, often two, or something that the user tells: a quarter of them."""
    templates = [random_.choice(STATED if random_.random() < 0.25 else ASKED)]
    templates += [random_.choice(ASKED)] if random_.random() < 0.3 else []
    return " ".join(
        one.format(
            good=random_.choice(GOODS), n=random_.randint(2, 90), m=random_.randint(0, 9), name=random_.choice(NAMES)
        )
        for one in templates
    )


def reply(random_: random.Random, tokens: float) -> str:
    """A reply of about `tokens` tokens in the median, some much longer: lengths are log-normal."""
    words = max(5, round(random_.lognormvariate(0.0, 0.5) * tokens * 0.72))
    said: list[str] = []
    while len(said) < words:
        length = min(random_.randint(8, 18), words - len(said))
        start = random_.randrange(len(WORDS))
        sentence = [WORDS[(start + place) % len(WORDS)] for place in range(length)]
        said += [sentence[0].capitalize(), *sentence[1:-1], sentence[-1] + "."] if length > 1 else [sentence[0] + "."]
    return " ".join(said)


def talk(seed: int, turns: int, tokens: float) -> Iterator[tuple[str, str]]:
    """Questions with their replies."""
    random_ = random.Random(seed)
    for _ in range(turns):
        yield question(random_), reply(random_, tokens)
