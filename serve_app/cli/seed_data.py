"""What `brain seed` makes: shops, who asks there, what is asked, and what their messages are told apart by."""

from dataclasses import dataclass, field
from typing import Any

from domain.products import Product
from serve_app.cli.seed_products import FINDS, PRODUCTS


@dataclass(frozen=True, slots=True)
class Talk:
    """`name` tells it again in a later run; `by`: the index of the user."""

    name: str
    title: str
    by: int
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shop:
    """A demonstration tenant. `asks`: texts that no head has learned from, and the intent of each. `finds`: queries of
    its catalogue, and the product that each finds first. `chat`: how its web widget is set."""

    name: str
    settings: dict[str, Any]
    people: tuple[tuple[str, str], ...]  # name and e-mail address
    talks: tuple[Talk, ...]
    intents: dict[str, list[str]]
    asks: dict[str, str] = field(default_factory=dict)
    products: tuple[Product, ...] = ()
    finds: dict[str, str] = field(default_factory=dict)
    chat: dict[str, Any] | None = None


SHOPS = (
    Shop(
        name="Lampenhaus (demonstration)",
        settings={
            "system_prompt": "You answer for Lampenhaus, a shop for lamps. Be brief, and friendly.",
            "retention_days": 365,
            "quotas": {"max_conversations": 10_000},
        },
        people=(("Ada Quist", "ada@lampenhaus.example"), ("Bo Lind", "bo@lampenhaus.example")),
        talks=(
            Talk(
                "lamps-1", "A red lamp", 0, ("Hello!", "Do you have a red desk lamp?", "How long does shipping take?")
            ),
            Talk("lamps-2", "Broken on arrival", 1, ("My lamp arrived broken.", "I would like my money back.")),
            Talk("lamps-3", "Where is it?", 0, ("Where is my parcel?", "Thank you, goodbye!")),
        ),
        intents={
            "refund": [
                "I want my money back",
                "please refund my lamp",
                "can I return this and be repaid",
                "give me a refund",
                "the lamp is broken, refund me",
                "repay what I have paid",
            ],
            "parcel": [
                "where is my parcel",
                "when does my lamp arrive",
                "track my package",
                "has my order been shipped",
                "my delivery is late",
                "which day will it be delivered",
            ],
            "opening_hours": [
                "when do you open",
                "are you open on sunday",
                "until when is the shop open",
                "what are your opening hours",
                "do you close at noon",
                "is the store open today",
            ],
        },
        asks={"I want a refund for my broken lamp": "refund", "where is my package, has it been shipped": "parcel"},
    ),
    Shop(
        name="Nordwind Travel (demonstration)",
        settings={"system_prompt": "You answer for Nordwind, which sells journeys to the north.", "pii_masking": "off"},
        people=(("Chi Okoro", "chi@nordwind.example"), ("Dana Weiss", "dana@nordwind.example")),
        talks=(
            Talk(
                "travel-1", "To the fjords", 0, ("Hello", "I want to book a cabin to Bergen.", "Is breakfast included?")
            ),
            Talk("travel-2", "Another date", 1, ("I must move my journey to May.", "What does that cost?")),
        ),
        intents={
            "book": [
                "I want to book a journey",
                "reserve a cabin for two",
                "book me a trip to Bergen",
                "I would like to make a booking",
                "can I reserve a seat",
                "book two beds for me",
            ],
            "change_date": [
                "move my journey to another date",
                "I want to travel a week later",
                "change the day of my trip",
                "can I postpone my departure",
                "travel in May instead",
                "reschedule my trip",
            ],
            "luggage": [
                "how much luggage may I take",
                "is a suitcase included",
                "can I bring my bicycle",
                "what may my bag weigh",
                "is hand luggage free",
                "extra bag, what does it cost",
            ],
        },
        asks={"please reserve a cabin for us": "book", "may I bring luggage, a suitcase and a bag": "luggage"},
    ),
    Shop(
        name="Fjellvik Outdoor (demonstration)",
        settings={
            "system_prompt": "You answer for Fjellvik Outdoor, a shop for clothing and gear. Be brief, and friendly."
        },
        people=(("Eli Moen", "eli@fjellvik.example"), ("Fay Odum", "fay@fjellvik.example")),
        talks=(
            Talk("outdoor-1", "A red T-shirt", 0, ("Hello!", "Do you have a red T-shirt under 50 dollars in size M?")),
            Talk("outdoor-2", "Boots", 1, ("Are the Rondane hiking boots waterproof?",)),
        ),
        intents={},  # the shared set knows questions about products
        products=PRODUCTS,
        finds=FINDS,
        chat={
            "title": "Fjellvik Outdoor",
            "greeting": "Hello! What are you looking for?",
            "colour": "#2f6b4f",
            "suggestions": [
                "Do you have a red T-shirt under 50 dollars in size M?",
                "What is your cheapest rain jacket?",
                "Are the Rondane hiking boots in stock?",
            ],
        },
    ),
)
