"""Which sound and which text belong to each record, by number, so that no step looks one up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from processors.cache import content_key, main_first
from processors.dataset import distinct_clips
from processors.json_lines import Arrays, JsonLines, digest_of, kept

if TYPE_CHECKING:
    from accelerate import Accelerator

NO_SOURCE = -1
EMPTY = 0  # number of the empty text


@dataclass(frozen=True)
class Examples:
    """Of the records of train.json, then those of valid.json.

    Attributes:
        clips: {"Dataset", "Uid"} of every sound once.
        captions: every text once, sorted; the empty one first.
        clip, source, caption: int [records], numbers of the sound to make, of the one to edit
            (NO_SOURCE: none), and of the text.
    """

    clips: JsonLines
    captions: JsonLines
    clip: np.ndarray
    source: np.ndarray
    caption: np.ndarray


def find_examples(
    cache: Path, train: Sequence[dict], valid: Sequence[dict], accelerator: Accelerator
) -> Examples:
    """Those of the records, numbered now, or found in `cache`.

    Of an edit, "Source" is the Uid of the sound to edit. A "Caption" of None counts as empty.
    """
    key = content_key(digest_of(train), digest_of(valid))
    captions, clips = (cache / f"{name}-{key}.index" for name in ("captions", "clips"))
    with main_first(accelerator):
        texts, file = kept(captions, lambda: _captions([*train, *valid]))
        sounds, file_of_sounds = kept(clips, lambda: _clips([*train, *valid]))
    return Examples(
        JsonLines(sounds, file_of_sounds),
        JsonLines(texts, file),
        sounds["clip"],
        sounds["source"],
        texts["caption"],
    )


def _captions(records: list[dict]) -> Arrays:
    texts = [record["Caption"] or "" for record in records]
    distinct = sorted({"", *texts})
    numbers = {text: number for number, text in enumerate(distinct)}
    caption = np.array([numbers[text] for text in texts], np.int32)
    return {**JsonLines.arrays_of(distinct), "caption": caption}


def _clips(records: list[dict]) -> Arrays:
    sources = [record.get("Source") for record in records]
    edited = [
        {**record, "Uid": source}
        for record, source in zip(records, sources, strict=True)
        if source is not None
    ]
    clips = [{key: clip[key] for key in ("Dataset", "Uid")} for clip in [*records, *edited]]
    clips = distinct_clips(clips)
    numbers = {(clip["Dataset"], clip["Uid"]): number for number, clip in enumerate(clips)}
    clip = [numbers[record["Dataset"], record["Uid"]] for record in records]
    source = [
        NO_SOURCE if source is None else numbers[record["Dataset"], source]
        for record, source in zip(records, sources, strict=True)
    ]
    arrays = {"clip": np.array(clip, np.int32), "source": np.array(source, np.int32)}
    return {**JsonLines.arrays_of(clips), **arrays}
