"""Customers' requests: a hundred intents, each an action on an object, in many wordings."""

import random
from collections.abc import Mapping, Sequence

ACTIONS: Mapping[str, Sequence[str]] = {
    "cancel": ("cancel {}", "call off {}", "scrap {}", "get rid of {}", "terminate {}"),
    "change": ("change {}", "modify {}", "make an adjustment to {}", "edit {}", "alter {}"),
    "status": (
        *("check the status of {}", "get news of {}", "follow the progress of {}"),
        *("hear how things stand with {}", "see an update on {}"),
    ),
    "complain": (
        *("complain about {}", "file a grievance over {}", "say how unhappy I am with {}"),
        *("protest against a fault with {}", "report a problem with {}"),
    ),
    "price": (
        *("know the price of {}", "find out what you charge for {}", "learn the cost of {}"),
        *("get a quote for {}", "see the fees for {}"),
    ),
    "renew": ("renew {}", "extend {}", "prolong {}", "carry on with {}", "continue {}"),
    "copy": (
        *("get a copy of the papers for {}", "receive a duplicate of the documents for {}"),
        *("download a PDF about {}", "print the details of {}", "have a receipt for {}"),
    ),
    "transfer": (
        *("transfer {} to my partner", "put {} in the name of my sister"),
        *("make my wife the owner of {}", "sign {} over to my husband"),
        "let a friend take over {}",
    ),
    "pause": ("pause {}", "suspend {}", "put {} on hold", "freeze {}", "interrupt {} for a month"),
    "pay": (
        *("pay for {}", "settle the bill for {}", "use a voucher for {}"),
        *("clear what I owe for {}", "send you the money for {}"),
    ),
}
"""What is asked for; the object takes the place of the braces."""

OBJECTS: Mapping[str, Sequence[str]] = {
    "order": ("my order", "my purchase", "the goods I bought", "the things in my basket"),
    "flight": ("my flight", "my plane ticket", "my seat on the plane", "my air travel"),
    "hotel": ("my hotel room", "my stay at the hotel", "my accommodation", "my lodging"),
    "insurance": ("my insurance", "my policy", "my coverage", "my insurance contract"),
    "phone": ("my phone plan", "my mobile tariff", "my phone number", "my mobile line"),
    "gym": ("my gym membership", "my gym", "my fitness club", "my fitness classes"),
    "card": ("my credit card", "my bank card", "my debit card", "the card in my wallet"),
    "loan": ("my loan", "my mortgage", "the sum I borrowed", "my home loan"),
    "newspaper": ("my newspaper", "my daily paper", "my magazine", "my newspaper subscription"),
    "internet": ("my internet connection", "my broadband", "my internet access", "my wifi"),
}
"""What it is asked for."""

_OPENINGS = ("", "", "", "Hello. ", "Hi there. ", "Good morning. ", "Sorry to bother you. ")
_FRAMES = (
    *("I want to {}.", "I would like to {}.", "Could you help me {}?", "How do I {}?"),
    *("Please let me {}.", "Is it possible to {}?", "I need to {}.", "Can I {}?"),
    *("What must I do to {}?", "I am writing to {}.", "Am I able to {}?", "It is time to {}."),
)
_CLOSINGS = (
    *("", "", " Thanks.", " It is urgent.", " My customer number is {number}."),
    *(" My reference is {number}.", " Call me on extension {number}."),
)

INTENTS = tuple((action, item) for action in ACTIONS for item in OBJECTS)
"""All pairs of an action and an object."""


def utterance(intent: tuple[str, str], draw: random.Random) -> str:
    """Draw a request with an intent, in one sentence to three."""
    action, item = intent
    request = draw.choice(ACTIONS[action]).format(draw.choice(OBJECTS[item]))
    closing = draw.choice(_CLOSINGS).format(number=draw.randint(10_000, 99_999))
    return f"{draw.choice(_OPENINGS)}{draw.choice(_FRAMES).format(request)}{closing}"
