"""Which task an instruction asks for, and whether a sound is to come or to go."""

from __future__ import annotations

import re

from processors.spectral_change import Way
from utils.errors import UserError

# How one asks for each task. What stands earliest in a sentence decides; of two at one place, the
# task that is named first here.
ASKS = {
    "replace": (
        r"replace|swap|exchange|instead of|put\b.*\bin (the )?place|take out\b.*\bplace|"
        r"(turn|change)\b.*\binto"
    ),
    "inpaint": (
        r"in-?paint|fill in|(fill|restore|repair)\b.*\b(gap|missing|silent)|"
        r"complete\b.*\bsound"
    ),
    "super_resolution": (
        r"super.?resolution|upsample|bandwidth|(restore|bring back)\b.*\b(frequenc\w*|treble)|"
        r"raise\b.*\brate|improve\b.*\bquality|make\b.*\b(clear|brighter)"
    ),
    "drop": (
        r"drop|remove|delete|erase|mute|take (this |that |it )?(out|away)|get rid of|silence|"
        r"cut out|keep everything but|do not want|don't want"
    ),
    "add": r"add|insert|mix in|put|overlay|let\b.*\bbe heard|should be heard|want to hear",
}
WAYS: dict[str, Way] = {"add": "comes", "drop": "goes"}  # by task, the change that is meant
LESS = re.compile(
    r"\b(not|no|never|nothing|only|without|less|down|lower|quieter|softer|out|away|stop)\b|n't\b",
    re.IGNORECASE,
)
MORE = re.compile(r"\b(play|let|make|amplify|louder|raise|turn up|then|instead)\b", re.IGNORECASE)
BEGINS = re.compile(r"(^|[,:;.!?]|\b(please|now|just|to|you|i))\s*$", re.IGNORECASE)  # a request
PATTERNS = {task: re.compile(rf"\b(?:{asks})\b", re.IGNORECASE) for task, asks in ASKS.items()}


def task_of(instruction: str) -> str | None:
    """The task (processors/edits.py's TASKS) that an instruction asks for, None where unclear.

    >>> task_of("Drop the sound of the dog barking"), task_of("Halfway through, add a bell")
    ('drop', 'add')
    """
    found = {task: asks.search(instruction) for task, asks in PATTERNS.items()}
    places = {task: match.start() for task, match in found.items() if match}
    return min(places, key=places.get, default=None)


def way_of(instruction: str) -> Way | None:
    """What of a change an instruction can mean, None where both or where that is unclear.

    Unclear is what asks for two things, what adds with a word of less in it, and what takes away
    with one of more, or where no request begins, as "a water drop should be heard".

    >>> way_of("Drop the dog"), way_of("Remove the dog and add a cat"), way_of("Put a bell in it")
    ('goes', None, 'comes')
    """
    task = task_of(instruction)
    if task not in WAYS:
        return None
    decides = PATTERNS[task].search(instruction)
    for asks in PATTERNS.values():
        for other in asks.finditer(instruction):
            if other.start() >= decides.end() and asks is not PATTERNS[task]:
                return None
    unclear = {
        "add": LESS.search(instruction),
        "drop": not BEGINS.search(instruction[: decides.start()])
        or MORE.search(instruction[decides.end() :].partition(":")[0]),
    }
    return None if unclear[task] else WAYS[task]


def check_task(task: str | None, tasks: list[str], source: object) -> None:
    """Raises UserError unless the editor in `source` was trained for the task (None: unclear)."""
    if task is not None and task not in tasks:
        raise UserError(
            f"task {task}: the editor in {source} was not trained for it; it knows"
            f" {', '.join(tasks)}"
        )
