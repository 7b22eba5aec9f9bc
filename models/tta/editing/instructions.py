"""Which task an instruction asks for."""

from __future__ import annotations

import re

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
PATTERNS = {task: re.compile(rf"\b(?:{asks})\b", re.IGNORECASE) for task, asks in ASKS.items()}


def task_of(instruction: str) -> str | None:
    """The task (processors/edits.py's TASKS) that an instruction asks for, None where unclear.

    >>> task_of("Drop the sound of the dog barking"), task_of("Halfway through, add a bell")
    ('drop', 'add')
    """
    found = {task: asks.search(instruction) for task, asks in PATTERNS.items()}
    places = {task: match.start() for task, match in found.items() if match}
    return min(places, key=places.get, default=None)


def check_task(task: str | None, tasks: list[str], source: object) -> None:
    """Raises UserError unless the editor in `source` was trained for the task (None: unclear)."""
    if task is not None and task not in tasks:
        raise UserError(
            f"task {task}: the editor in {source} was not trained for it; it knows"
            f" {', '.join(tasks)}"
        )
