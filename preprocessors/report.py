"""What preprocessing kept, what it left out and why: preprocess_report.json and a table."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from config.schema import PreprocessConfig
from preprocessors.captions import caption_lines, look_at_captions
from preprocessors.records import Records, Skip
from preprocessors.splits import Leak, Splits, same_sounds
from processors.clips import Clip, Outcome
from processors.lengths import padding_advice
from utils.table import text_table

FRAME_STEP = 16  # a length of clips that suits every shipped autoencoder is a multiple of it


def build_report(
    dataset: str,
    records: Records,
    clips: list[Clip],
    skipped: Iterable[Skip],
    kept: dict[str, Outcome],
    splits: Splits,
    leaks: list[Leak],
    settings: PreprocessConfig,
) -> dict:
    """The report as plain JSON values; equal input gives an equal report."""
    remarks = [Skip(remark, uid) for uid, outcome in kept.items() for remark in outcome.remarks]
    # How the sound files of AudioCaps are named.
    named = (clip for clip in clips if clip.uid in records.stems)  # not those of a user's JSON
    naming = (records.stems[clip.uid][Path(clip.file).stem] for clip in named)
    return {
        "dataset": dataset,
        "origin": {split: records.origin.get(split, "-") for split in splits},
        "naming": dict(Counter(naming).most_common()),
        "mel": {"fingerprint": settings.mel.fingerprint, **dataclasses.asdict(settings.mel)},
        "splits": {split: _metrics(split_records, kept) for split, split_records in splits.items()},
        "kept": len(kept),
        "hours": round(sum(outcome.seconds for outcome in kept.values()) / 3600, 4),
        "lengths": _lengths(kept, settings),
        "skipped": grouped(skipped),
        "remarks": grouped(remarks),
        "leaks": [dataclasses.asdict(leak) for leak in leaks],
        "same_sounds": [dataclasses.asdict(leak) for leak in same_sounds(splits, kept)],
        "captions": look_at_captions([r for r in splits["train"] if r["Uid"] in kept]),
    }


def _metrics(records: list[dict], kept: dict[str, Outcome]) -> dict:
    usable = [record for record in records if record["Uid"] in kept]
    uids = {record["Uid"] for record in usable}
    return {
        "records": len(usable),
        "clips": len(uids),
        "hours": round(sum(kept[uid].seconds for uid in sorted(uids)) / 3600, 4),
        "captions_per_clip": round(len(usable) / max(len(uids), 1), 2),
    }


def _lengths(kept: dict[str, Outcome], settings: PreprocessConfig) -> dict:
    frames = [outcome.frames for outcome in kept.values()]
    seconds = [outcome.seconds for outcome in kept.values()]
    shorter = sum(count < settings.segment_frames for count in frames)
    # "inclusive": of few clips, too, no length is above the longest.
    tenths = statistics.quantiles(frames, n=10, method="inclusive") if len(frames) > 1 else frames
    most = tenths[-1] if tenths else 0
    return {
        "median_seconds": round(statistics.median(seconds), 2) if seconds else 0.0,
        "segment_frames": settings.segment_frames,
        "shorter_than_segment": shorter,
        "suggested_segment_frames": max(1, round(most / FRAME_STEP)) * FRAME_STEP,
    }


def grouped(skipped: Iterable[Skip]) -> dict[str, dict]:
    """Reason -> names and hints, the most frequent reason first."""
    groups: dict[str, dict[str, str]] = {}
    for skip in skipped:
        groups.setdefault(skip.reason, {})[skip.name] = skip.hint
    report: dict[str, dict] = {}
    for reason, names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        report[reason] = {"count": len(names), "names": [*names]}
        if hints := {name: hint for name, hint in names.items() if hint}:
            report[reason]["hints"] = hints
    return report


def table(report: dict, path: Path) -> str:
    """The report for the terminal."""
    left_out = sum(entry["count"] for entry in report["skipped"].values())
    rows: list[list] = [["", "records", "clips", "hours", "captions/clip", "from"]]
    for split, row in report["splits"].items():
        counts = f"{row['records']:,}", f"{row['clips']:,}", f"{row['hours']:,.2f}"
        each = f"{row['captions_per_clip']:.2f}"
        rows.append([split, *counts, each, report["origin"][split]])
    lines = [
        f"{report['dataset']}: {report['kept']:,} clips kept ({report['hours']:,.2f} h),"
        f" {left_out:,} left out",
        *(f"  sounds named {name}: {count:,}" for name, count in report["naming"].items()),
        text_table(rows, left=(0, 5), indent=2),
    ]
    for reason, entry in report["skipped"].items():
        lines.append(f"  left out {entry['count']:,}: {reason}")
        lines += [f"    {name}: {hint}" for name, hint in [*entry.get("hints", {}).items()][:3]]
    if report["sounds_without_caption"]:
        lines.append(f"  sounds that no caption names: {report['sounds_without_caption']:,}")
    lines += [
        f"  kept, but {remark}: {entry['count']:,}" for remark, entry in report["remarks"].items()
    ]
    lines += _leak_lines("clips", report["leaks"])
    lines += _leak_lines("clips with the very sound of another", report["same_sounds"])
    if not report["splits"]["valid"]["clips"]:
        lines.append("  no clips for validation")
    if report["kept"] and not report["captions"]["different"]:
        lines.append(
            "  no captions: a model learns of these sounds with"
            " --config egs/tta/audioldm/exp_config_clap.json (model.conditioner=clap)"
        )
    lines += _length_lines(report) + caption_lines(report["captions"])
    return "\n".join([*lines, f"  names in {path}"])


def _leak_lines(what: str, leaks: list[dict]) -> list[str]:
    pairs = Counter((leak["split"], leak["also_in"], leak["removed"]) for leak in leaks)
    return [
        f"  {what} in {split}{'' if also_in == split else f' as well as in {also_in}'}: {count:,}"
        f" ({f'removed from {split}' if removed else 'left there'})"
        for (split, also_in, removed), count in sorted(pairs.items())
    ]


def _length_lines(report: dict) -> list[str]:
    """Advice where most of what a model would see is silence after the clips."""
    lengths, segment = report["lengths"], report["lengths"]["segment_frames"]
    second = report["mel"]["sample_rate"] / report["mel"]["hop_size"]
    advice = padding_advice(lengths, segment, second)
    if advice is None or not report["kept"]:
        return []
    return [
        f"  {lengths['shorter_than_segment'] / report['kept']:.0%} of the clips are shorter than"
        f" preprocess.segment_frames ({segment} frames, {segment / second:.2f} s) and are padded"
        f" with silence; their median is {lengths['median_seconds']:.2f} s",
        f"    {advice}",
    ]
