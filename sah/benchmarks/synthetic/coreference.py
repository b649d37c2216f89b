"""Multi-round co-reference: repeat the i-th of several answers to the same request (MRCR).

The task is that of Michelangelo (arXiv:2409.12640) and OpenAI's data set (openai/mrcr on the Hub,
MIT): in a long conversation, the user asks for pieces of writing ("Write a poem about tapirs"),
some of the requests are identical, and the last one asks for the i-th of their answers, after a
random string. Wording of the last request, numbers of identical requests and score are OpenAI's.
Deviations:
- A piece is two verses of the King James Bible, which have nothing to do with its topic. Theirs are
  written by a language model, and much longer. No two pieces of a prompt are equal.
- The conversation has as many rounds as fit into the budget, and is text in one message, as in
  google-deepmind/eval_hub (`mrcr_v2`). OpenAI's has a message for each turn.
- One solved example comes first, generated for each sample; theirs are the same in all prompts.
- An eighth of the other requests share the topic, and an eighth the form of the identical ones.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from string import ascii_letters, digits
from typing import ClassVar

from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.haystacks import prose
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.scorers import prefixed_similarity
from sah.benchmarks.scoring import Task
from sah.errors import ConfigurationError
from sah.types import Example, Size

_TASK = Task(max_new_tokens=128, scorer=prefixed_similarity)
# The template and the end of the answer take tokens too.
_SPARE_TOKENS = 16
_NEEDLES = {"2_needles": 2, "4_needles": 4, "8_needles": 8}
_ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th")
# Characters of a verse: pieces are short enough for eight of them in a small budget.
_SHORTEST, _LONGEST = 50, 110
_SHARED = 1 / 8

_FORMS = (
    *("poem", "blog post", "social media post", "short story", "riddle"),
    *("song", "speech", "news article", "letter", "diary entry"),
)
_TOPICS = (  # noqa: SIM905 (a list would take a line a word)
    "acorns anchors ants apples badgers balloons barns beavers bells bicycles boats bridges "
    "brooms butterflies cactuses candles canoes carpets castles caves chairs cherries clocks "
    "clouds coins comets compasses corals cranes crickets crowns deserts dolphins donkeys doors "
    "dragons drums eagles elevators engines falcons farms feathers fences ferries flutes "
    "forests fossils foxes frogs gardens geysers glaciers gloves goats hammers harbours harps "
    "hedgehogs herons horses icebergs islands jackets jugglers kettles keys kites ladders lakes "
    "lanterns lemons libraries lighthouses lizards lobsters magnets maps markets meadows "
    "mirrors moons mosses mountains mushrooms needles nests oaks oceans octopuses olives onions "
    "orchards otters owls oysters parrots pearls pencils penguins pianos pigeons pillows "
    "planets plums ponds puppets pyramids rabbits rafts railways ravens rivers robots rocks "
    "roofs ropes roses sails salmon scarves shadows shells ships snails snowflakes spiders "
    "spoons stairs stars statues storms swans tapirs teapots telescopes tents tides tigers "
    "towers trains tulips tunnels turtles umbrellas valleys violins volcanoes waterfalls whales "
    "whistles windmills windows wolves"
).split()


@dataclass(frozen=True, kw_only=True)
class Coreference(GeneratedBenchmark):
    """The i-th of 2, 4 or 8 answers to the same request, in a conversation of any length."""

    name: str = "coreference"

    title: ClassVar[str] = "multi-round co-reference, generated; rules of openai/mrcr"
    licence: ClassVar[str] = "rules MIT; King James Bible is public domain"
    tasks: ClassVar = dict.fromkeys(_NEEDLES, _TASK)

    def size(self, seed: int) -> Size:
        """Refuse: an answer limit is the length of the passage asked for.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"the answer limits of {self.name} are counted with the model's tokenizer"
        )

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task."""
        return partial(_example, task)


def _example(task: str, number: int, budget: Budget, seed: int) -> Example:
    """Generate one sample: a conversation of as many rounds as fit, and the last request.

    Raises:
        ConfigurationError: if the needles do not fit into the budget.
        DatasetError: if the package with the verses is missing.
    """
    draw = random.Random(seed)
    wanted = _request(draw)
    pieces = _pieces(draw)
    solved = _solved_example(wanted, pieces, draw)
    needles = list(islice(pieces, _NEEDLES[task]))
    asked = draw.randrange(len(needles))
    prefix = _random_string(draw)
    placement = draw.getrandbits(63)
    rounds, estimates = budget.enough(_other_rounds(wanted, pieces, draw))
    (answer_tokens,) = budget.counts.of([prefix + needles[asked]])

    def build(others: int) -> Example:
        rank = random.Random(placement)
        conversation = rounds[:others]
        places = sorted(rank.randrange(others + 1) for _ in needles)
        for place, needle in zip(reversed(places), reversed(needles), strict=True):
            conversation.insert(place, _round(wanted, needle))
        return Example(
            id=f"{task}-{number}",
            task=task,
            context=f"{solved}{''.join(conversation)}",
            question=f"{_last_request(prefix, asked, wanted)}Assistant:",
            references=(prefix + needles[asked],),
            max_new_tokens=max(_TASK.max_new_tokens, answer_tokens + _SPARE_TOKENS),
            extras={"prefix": prefix},
        )

    example = budget.fill(build, estimates, least=1)
    return budget.with_needles(example, dict(zip(needles, _ORDINALS, strict=False)))


def _request(draw: random.Random) -> tuple[str, str]:
    """Draw the form and the topic of a piece of writing."""
    return draw.choice(_FORMS), draw.choice(_TOPICS)


def _other_request(wanted: tuple[str, str], draw: random.Random) -> tuple[str, str]:
    """Draw another request, which may share the form or the topic."""
    form, topic = wanted
    while True:
        request = _request(draw)
        kind = draw.random()
        if kind < _SHARED:
            request = (request[0], topic)
        elif kind < 2 * _SHARED:
            request = (form, request[1])
        if request != wanted:
            return request


def _other_rounds(
    wanted: tuple[str, str], pieces: Iterator[str], draw: random.Random
) -> Iterator[str]:
    while True:
        yield _round(_other_request(wanted, draw), next(pieces))


def _pieces(draw: random.Random) -> Iterator[str]:
    """Yield different pairs of verses endlessly, in random order."""
    verses = _verses()
    for distance in count(1):
        for first in draw.sample(range(len(verses)), len(verses)):
            yield f"{verses[first]}\n{verses[(first + distance) % len(verses)]}"


@cache
def _verses() -> Sequence[str]:
    """Return the different verses of suitable length."""
    return [verse for verse in dict.fromkeys(prose()) if _SHORTEST <= len(verse) <= _LONGEST]


def _solved_example(wanted: tuple[str, str], pieces: Iterator[str], draw: random.Random) -> str:
    """Generate a short conversation of the same kind with its answer."""
    request = _other_request(wanted, draw)
    first, second = islice(pieces, 2)
    prefix = _random_string(draw)
    return (
        "Here is an example of a conversation succeeded by a follow-up question answered "
        "correctly:\n\n======EXAMPLE======\n"
        f"{_round(request, first)}{_round(request, second)}{_last_request(prefix, 1, request)}"
        f"Assistant: {prefix}{second}\n\n======END EXAMPLE======\n\n"
    )


def _random_string(draw: random.Random) -> str:
    return "".join(draw.choices(ascii_letters + digits, k=10))


def _round(request: tuple[str, str], piece: str) -> str:
    form, topic = request
    return f"User: Write a {form} about {topic}\n\nAssistant: {piece}\n\n"


def _last_request(prefix: str, asked: int, request: tuple[str, str]) -> str:
    form, topic = request
    return (
        f"User: Prepend {prefix} to the {_ORDINALS[asked]} (1 indexed) {form} about {topic}. Do "
        "not include any other text in your response.\n\n"
    )
