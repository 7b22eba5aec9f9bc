"""A look at the captions: which words occur too seldom to be learnt."""

from __future__ import annotations

import re
from collections import Counter

FEW_CLIPS = 5  # a word of fewer clips is hardly heard apart from what else is in them
SHOWN = 5


def look_at_captions(records: list[dict]) -> dict:
    """Numbers of captions and words, as plain JSON values; words are told apart without case."""
    records = [record for record in records if record["Caption"] is not None]
    captions = Counter(record["Caption"] for record in records)
    clips: dict[str, set[str]] = {}
    for record in records:
        for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", record["Caption"].lower()):
            clips.setdefault(word, set()).add(record["Uid"])
    rare = sorted(word for word, uids in clips.items() if len(uids) < FEW_CLIPS)
    return {
        "different": len(captions),
        "used_once": sum(count == 1 for count in captions.values()),
        "words": len(clips),
        "rare_words": rare,
    }


def caption_lines(look: dict) -> list[str]:
    """The look for the terminal, with advice where most words are rare."""
    if not look["words"]:
        return []
    rare, words = look["rare_words"], look["words"]
    lines = [
        f"  captions in train: {look['different']:,} different, {look['used_once']:,} used once;"
        f" {words:,} words, {len(rare):,} of them in fewer than {FEW_CLIPS} clips"
    ]
    if 2 * len(rare) > words:
        shown = ", ".join(rare[:SHOWN]) + (", ..." if len(rare) > SHOWN else "")
        lines.append(
            f"    most words have too few clips to be learnt ({shown}): use the same word for the"
            " same sound, or start from published weights"
        )
    return lines
