"""Instructions and captions of triplets, in sentences. The templates are in wording.json.

A template has places: {a} and {the} for a label with its article ("a dog", "the dog"), {clause} for
a caption ("a dog barks"), {a2} and {clause2} for what comes in its place, {where}, and {whole} for
the caption of the whole result.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from preprocessors.demo_kinds import sentence
from preprocessors.demo_sounds import Draw

TEMPLATES: dict[str, list[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
# A caption with one of these tells of more than one event (AUDIT's own list).
JOINING = set(TEMPLATES["joining words"])
# Words of a caption that say nothing of what is heard.
EMPTY = JOINING.union(TEMPLATES["empty words"])
# Words after which English wants no article, though they are neither plural nor end in -ing.
NO_ARTICLE = set(TEMPLATES["words without article"])
ARTICLE = re.compile(r"^(a|an|the|some)\s", re.IGNORECASE)


def clause(caption: str) -> str:
    """A caption as it stands within a sentence: "A dog barks." is a dog barks."""
    text = " ".join(caption.split()).rstrip(".!; ")
    first = text.split(" ")[0]
    is_name = first == "I" or (first.isupper() and len(first) > 1)
    return text if is_name else text[:1].lower() + text[1:]


def with_article(label: str) -> str:
    """A label as a thing that is heard: "dog" is a dog, and "sea waves" stays as it is.

    Plurals, what is done ("sneezing") and what cannot be counted ("rain") take no article.
    """
    if ARTICLE.match(label):
        return clause(label)
    last = label.lower().split(" ")[-1]
    plural = last.endswith("s") and not last.endswith("ss")
    if plural or last.endswith("ing") or last in NO_ARTICLE:
        return clause(label)
    return f"{'an' if label[:1].lower() in tuple('aeiou') else 'a'} {clause(label)}"


def with_the(label: str) -> str:
    """A label as a thing that is known: "dog" is the dog."""
    return f"the {clause(ARTICLE.sub('', label, count=1))}"


def is_one_event(caption: str, most_words: int) -> bool:
    """Whether a caption tells of one event, by its words."""
    words = re.findall(r"[\w'-]+", caption.lower())
    return 0 < len(words) <= most_words and JOINING.isdisjoint(words) and "," not in caption


def words_of(*texts: str) -> set[str]:
    """The first letters of all words that say something: bark, barks and barking are one."""
    words = re.findall(r"[^\W\d_]+", " ".join(texts).lower())
    return {word.rstrip("s")[:4] for word in words if EMPTY.isdisjoint((word, word.rstrip("s")))}


def places_of(label: str | None, caption: str | None, number: str = "") -> dict[str, str]:
    """What an event gives for {a}, {the} and {clause}, each with the `number` after its name."""
    found = {}
    if label is not None:
        found |= {f"a{number}": with_article(label), f"the{number}": with_the(label)}
    if caption is not None:
        found |= {f"clause{number}": clause(caption)}
    return found


def instruction(task: str, places: dict[str, str], draw: Draw) -> tuple[str, int]:
    """An instruction and the number of its template, one of those that the places can fill."""
    fits = [
        number
        for number, template in enumerate(TEMPLATES[task])
        if places.keys() >= set(re.findall(r"\{(\w+)\}", template))
    ]
    number = fits[draw.index(len(fits))]
    return sentence(TEMPLATES[task][number].format(**places)), number


def caption_of_mixture(bed: str, event: str, position: str | None, draw: Draw) -> str:
    """A caption of a bed with an event at its position, or (None) wherever it may be."""
    places = {"bed": clause(bed), "event": event}
    if position is None:
        return instruction("mixture_anywhere", places, draw)[0]
    return instruction("mixture", places | {"where": where(position, draw)}, draw)[0]


def where(position: str, draw: Draw) -> str:
    """Words for a position: beginning, middle, end or background."""
    return draw.choice(TEMPLATES[position])
