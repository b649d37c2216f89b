"""Common knowledge that links what a text says to what a question asks, and names of characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Association(NamedTuple):
    """Two things that everybody links, such as a landmark and its city."""

    hidden: str
    """What the text names."""
    asked: str
    """What the question names, one hop away."""
    beyond: str = ""
    """What the question names at two hops."""


@dataclass(frozen=True, kw_only=True)
class Category:
    """Associations of one kind, and the sentences that are made from them."""

    needles: Sequence[str]
    """Sentences that name the character first."""
    inverted: Sequence[str]
    """Sentences that name the character last."""
    question: str
    """Of one hop or two."""
    associations: Sequence[Association]

    @property
    def has_two_hops(self) -> bool:
        """Whether each association leads further."""
        return all(association.beyond for association in self.associations)


CATEGORIES = (
    Category(
        needles=(
            "Actually, {name} lives next to {hidden}.",
            "Every morning, {name} walks past {hidden}.",
        ),
        inverted=(
            "Actually, {hidden} is next to the house where {name} lives.",
            "{hidden} can be seen from the window of {name}.",
        ),
        question="Which character has been to {asked}?",
        associations=(
            Association("the Semper Opera House", "Dresden", "Germany"),
            Association("the Brandenburg Gate", "Berlin", "Germany"),
            Association("the Eiffel Tower", "Paris", "France"),
            Association("the Colosseum", "Rome", "Italy"),
            Association("the Uffizi Gallery", "Florence", "Italy"),
            Association("the Rialto Bridge", "Venice", "Italy"),
            Association("the Sagrada Familia", "Barcelona", "Spain"),
            Association("the Alhambra", "Granada", "Spain"),
            Association("Big Ben", "London", "England"),
            Association("the Atomium", "Brussels", "Belgium"),
            Association("the Rijksmuseum", "Amsterdam", "the Netherlands"),
            Association("the Little Mermaid statue", "Copenhagen", "Denmark"),
            Association("Wenceslas Square", "Prague", "the Czech Republic"),
            Association("Schoenbrunn Palace", "Vienna", "Austria"),
            Association("the Acropolis", "Athens", "Greece"),
            Association("Hagia Sophia", "Istanbul", "Turkey"),
            Association("the Kremlin", "Moscow", "Russia"),
            Association("the Taj Mahal", "Agra", "India"),
            Association("the Forbidden Palace", "Beijing", "China"),
            Association("the Petronas Towers", "Kuala Lumpur", "Malaysia"),
            Association("the Burj Khalifa", "Dubai", "the United Arab Emirates"),
            Association("Table Mountain", "Cape Town", "South Africa"),
            Association("the Golden Gate Bridge", "San Francisco", "the United States"),
            Association("the Space Needle", "Seattle", "the United States"),
        ),
    ),
    Category(
        needles=(
            "{name} cooks {hidden} for the guests every week.",
            "On Fridays, {name} always orders {hidden}.",
        ),
        inverted=(
            "The best recipe for {hidden} is said to be that of {name}.",
            "A large bowl of {hidden} stood before {name}.",
        ),
        question="Which character enjoys the cuisine of {asked}?",
        associations=(
            Association("sushi", "Japan", "Asia"),
            Association("kimchi", "Korea", "Asia"),
            Association("nasi goreng", "Indonesia", "Asia"),
            Association("chicken tikka masala", "India", "Asia"),
            Association("pierogi", "Poland", "Europe"),
            Association("goulash", "Hungary", "Europe"),
            Association("paella", "Spain", "Europe"),
            Association("moussaka", "Greece", "Europe"),
            Association("haggis", "Scotland", "Europe"),
            Association("lasagne", "Italy", "Europe"),
            Association("poutine", "Canada", "North America"),
            Association("tacos", "Mexico", "North America"),
            Association("ceviche", "Peru", "South America"),
            Association("feijoada", "Brazil", "South America"),
            Association("injera", "Ethiopia", "Africa"),
        ),
    ),
    Category(
        needles=(
            "Before the long journey, {name} changed all savings into {hidden}.",
            "{name} carries a purse full of {hidden}.",
        ),
        inverted=(
            "A purse full of {hidden} was returned to {name}.",
            "The lottery prize was paid out in {hidden} to {name}.",
        ),
        question="Which character has money to spend in {asked}?",
        associations=(
            Association("yen", "Japan", "Asia"),
            Association("rupiah", "Indonesia", "Asia"),
            Association("baht", "Thailand", "Asia"),
            Association("ringgits", "Malaysia", "Asia"),
            Association("zlotys", "Poland", "Europe"),
            Association("forints", "Hungary", "Europe"),
            Association("hryvnias", "Ukraine", "Europe"),
            Association("naira", "Nigeria", "Africa"),
            Association("cedis", "Ghana", "Africa"),
        ),
    ),
    Category(
        needles=(
            "{name} feeds {hidden} every evening.",
            "At home, {name} is never without {hidden}.",
        ),
        inverted=(
            "Visitors were startled by {hidden} in the flat of {name}.",
            "For the birthday there was {hidden}, bought for {name}.",
        ),
        question="Which character keeps {asked} as a pet?",
        associations=(
            Association("a poodle", "a dog", "a mammal"),
            Association("a beagle", "a dog", "a mammal"),
            Association("a Shetland pony", "a horse", "a mammal"),
            Association("a cobra", "a snake", "a reptile"),
            Association("an iguana", "a lizard", "a reptile"),
            Association("a cockatoo", "a parrot", "a bird"),
            Association("a tarantula", "a spider", "an arachnid"),
        ),
    ),
    Category(
        needles=(
            "{name} has worked as {hidden} for twenty years.",
            "After a long apprenticeship, {name} became {hidden}.",
        ),
        inverted=(
            "The only person in the village who works as {hidden} is {name}.",
            "They sent for {hidden}, and in came {name}.",
        ),
        question="Which character knows a lot about {asked}?",
        associations=(
            Association("a sommelier", "wine"),
            Association("a cardiologist", "hearts"),
            Association("a dentist", "teeth"),
            Association("an ornithologist", "birds"),
            Association("an entomologist", "insects"),
            Association("a herpetologist", "snakes"),
            Association("a mycologist", "mushrooms"),
            Association("a botanist", "plants"),
            Association("a geologist", "rocks"),
            Association("a numismatist", "coins"),
            Association("a philatelist", "stamps"),
            Association("an apiarist", "bees"),
            Association("an astronomer", "stars"),
            Association("a cartographer", "maps"),
            Association("a seismologist", "earthquakes"),
            Association("a meteorologist", "weather"),
            Association("a dermatologist", "skin"),
            Association("a horologist", "clocks"),
        ),
    ),
    Category(
        needles=(
            "{name} practises the {hidden} after work.",
            "In the school orchestra, {name} took up the {hidden}.",
        ),
        inverted=(
            "The {hidden} in the attic belongs to {name}.",
            "Nobody has mastered the {hidden} as well as {name}.",
        ),
        question="Which character can play a {asked} instrument?",
        associations=(
            Association("cello", "stringed"),
            Association("viola", "stringed"),
            Association("trombone", "brass"),
            Association("tuba", "brass"),
            Association("xylophone", "percussion"),
            Association("timpani", "percussion"),
            Association("oboe", "woodwind"),
            Association("clarinet", "woodwind"),
            Association("bassoon", "woodwind"),
        ),
    ),
)

CHARACTERS = (
    *("Yuki", "Priya", "Diego", "Olga", "Stefan", "Ingrid", "Kwame", "Fatima", "Henrik"),
    *("Camila", "Rafael", "Svetlana", "Tomasz", "Beatrix", "Gunther", "Lorenzo", "Nadia"),
    *("Oskar", "Paloma", "Quentin", "Rosalind", "Siobhan", "Thibault", "Ursula", "Valentina"),
    *("Wilhelm", "Ximena", "Yolanda", "Zoltan", "Amara", "Bjorn", "Clarissa", "Dmitri"),
    *("Esperanza", "Florian", "Greta", "Hiroshi", "Isabella", "Jakub", "Katarina"),
)
"""None of them is in the King James Bible, nor part of another word of a needle or a question."""
