"""What the built-in model says, by intent. `{topic}` is what the user's message was about, in the user's words."""

NO_MODEL = (
    "No language model is configured, so this is a prepared answer. "
    "To connect one, start the service with `brain up --provider-url URL --model NAME` or `brain up --config FILE`.\n\n"
)

OTHER = "other"

TEMPLATES: dict[str, tuple[str, ...]] = {
    "greeting": (
        "Hello! I can help with products, orders, shipping, returns and payments. What can I do for you?",
        "Hi, good to see you. What are you looking for today?",
    ),
    "goodbye": (
        "Goodbye, and thank you for stopping by.",
        "Thank you for your time. Write again whenever you need something.",
    ),
    "thanks": (
        "You are welcome. Is there anything else that I can do?",
        "Glad to help. Just write if something else comes up.",
    ),
    "help": ("I can answer questions about products, orders, shipping, returns, refunds, payments and your account.",),
    "product_search": (
        "You are looking for {topic}. Tell me your budget, size or colour, and I can narrow the choice down.",
        "About {topic}: which features matter most to you, and what may it cost?",
    ),
    "product_info": ("You would like to know more about {topic}. Which detail matters: size, material, stock?",),
    "recommendation": ("For {topic} I need to know a little more: who is it for, and what may it cost?",),
    "product_availability": (
        "To see whether {topic} is in stock I need the product's exact name, its size and its colour.",
    ),
    "price": ("To tell you the price of {topic} I need the product's exact name or its number.",),
    "discount": ("Current offers are listed in the shop, and a discount code is entered at the checkout.",),
    "order_status": (
        "To find out about {topic} I need the order's number; it stands in your confirmation e-mail.",
        "I can look into {topic}. Please send me the order's number and the e-mail address it was placed with.",
    ),
    "cancel_order": (
        "An order can be cancelled until it leaves the warehouse. Please send me its number, and I pass it on.",
    ),
    "change_order": (
        "An order can be changed until it leaves the warehouse. Which order is it, and what should change?",
    ),
    "returns": (
        "You want to send something back: {topic}. Please tell me the order's number and what is wrong with the item, "
        "and you get the way to return it.",
        "A return needs the order's number and the item as it came. Which order is it about?",
    ),
    "refund": (
        "A refund goes back to the means of payment of the order. Which order is it about, and what happened?",
        "I am sorry that it did not work out. Send me the order's number, and the refund can be looked into.",
    ),
    "exchange": (
        "An exchange is possible while the other size or colour is in stock. Which order and item is it about?",
    ),
    "shipping": (
        "Shipping time and cost depend on where the parcel goes. Which country and postal code is it?",
        "About {topic}: tell me the destination, and I can say how long it takes and what it costs.",
    ),
    "complaint": (
        "I am sorry about this: {topic}. Please tell me the order's number, so that someone can put it right.",
        "That should not have happened, and I am sorry. What would be a good solution for you?",
    ),
    "human_agent": (
        "I pass you on to a person. Please leave the order's number, if there is one, and a way to reach you.",
    ),
    "payment": (
        "About your payment, {topic}: please do not send card numbers here. Which order is it, and what did you see?",
    ),
    "account": (
        "For questions about your account, such as {topic}, open the account page; a lost password can be reset there.",
    ),
    "store_info": (
        "Opening hours, addresses and contacts of our stores stand on the store page. Which town is it about?",
    ),
    "other": (
        "You wrote about {topic}. I can only answer on products, orders, shipping, returns and payments.",
        "I have no prepared answer about {topic}. Could you say it in other words, or ask about an order or a product?",
    ),
}
