"""Clips much shorter than what a model is trained on: it learns the silence after them, too."""

from __future__ import annotations

from collections.abc import Sequence

from config.schema import Config
from processors.metadata import dataset_dir, read_report


def padding_advice(
    lengths: dict, segment: int, second: float, latent: Sequence[int] = ()
) -> str | None:
    """What to do where most of what a model would see is silence; None where it is not.

    Args:
        lengths: of the report of preprocessing.
        segment: frames that are trained on.
        second: in frames.
        latent: [z, height, width] of as many frames, where it has to be set as well.
    """
    length = lengths["suggested_segment_frames"]
    if 2 * lengths["median_seconds"] * second > segment or length == segment:  # the best there is
        return None
    of_latent = ""
    if latent:
        z, height, width = latent
        of_latent = f" 'model.latent=[{z}, {height}, {width * length // segment}]'"
    advice = f"train with preprocess.segment_frames={length}{of_latent} ({length / second:.2f} s)"
    if length > segment:  # of short and long ones together, no length suits
        advice = "prepare the short ones as a data set of their own, with fewer frames"
    return f"{advice}, or most of what is generated will be silent"


def padding_notes(config: Config) -> list[str]:
    """The same for each data set of a training, whose preprocessing may have had other frames."""
    notes, mel = [], config.preprocess.mel
    segment, second = config.preprocess.segment_frames, mel.sample_rate / mel.hop_size
    latent = getattr(config.model, "latent", ())
    for dataset in config.dataset:
        lengths = read_report(dataset_dir(config, dataset)).get("lengths")
        if lengths and (advice := padding_advice(lengths, segment, second, latent)):
            notes.append(
                f"the clips of {dataset}, {lengths['median_seconds']:.2f} s long in the median, are"
                f" padded with silence to {segment / second:.2f} s (preprocess.segment_frames"
                f" {segment}): {advice}"
            )
    return notes
