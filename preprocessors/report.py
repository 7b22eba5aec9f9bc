"""What preprocessing kept, what it left out and why: preprocess_report.json and a table."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

from config.schema import MelConfig
from preprocessors.ready import REPORT_FILE
from preprocessors.source import Source
from preprocessors.splits import Leak, same_sounds
from processors.clips import Outcome
from processors.metadata import write_text


def build_report(
    dataset: str,
    source: Source,
    ready: list[str],
    splits: dict[str, list[dict]],
    leaks: list[Leak],
    mel: MelConfig,
) -> dict:
    """The report as plain JSON values; equal input gives an equal report."""
    kept = source.kept
    return {
        "dataset": dataset,
        "origin": {
            split: "written by you" if split in ready else source.origin.get(split, "-")
            for split in splits
        },
        "naming": source.naming,
        "mel": {"fingerprint": mel.fingerprint, **dataclasses.asdict(mel)},
        "splits": {split: _figures(records, kept) for split, records in splits.items()},
        "kept": len(kept),
        "hours": round(sum(clip.seconds for clip in kept.values()) / 3600, 4),
        "skipped": {
            reason: {"count": len(names), "names": names}
            for reason, names in source.skipped.by_reason()
        },
        "sounds_without_caption": source.without_caption,
        "clipped": [uid for uid, clip in kept.items() if clip.clipped],
        "leaks": [dataclasses.asdict(leak) for leak in leaks],
        "same_sounds": [dataclasses.asdict(leak) for leak in same_sounds(splits, kept)],
    }


def _figures(records: list[dict], kept: dict[str, Outcome]) -> dict:
    uids = {record["Uid"] for record in records if record["Uid"] in kept}
    usable = [record for record in records if record["Uid"] in kept]
    return {
        "records": len(usable),
        "clips": len(uids),
        "hours": round(sum(kept[uid].seconds for uid in sorted(uids)) / 3600, 4),
        "captions_per_clip": round(len(usable) / max(len(uids), 1), 2),
    }


def write_report(dataset_dir: Path, report: dict) -> None:
    write_text(dataset_dir / REPORT_FILE, json.dumps(report, ensure_ascii=False, indent=1) + "\n")


def table(report: dict, path: Path) -> str:
    """The report for the terminal."""
    left_out = sum(entry["count"] for entry in report["skipped"].values())
    lines = [
        f"{report['dataset']}: {report['kept']:,} clips kept ({report['hours']:,.2f} h),"
        f" {left_out:,} left out",
        *(f"  sounds named {name}: {count:,}" for name, count in report["naming"].items()),
        f"  {'':8}{'records':>9}{'clips':>9}{'hours':>9}{'captions/clip':>15}  from",
    ]
    for split, row in report["splits"].items():
        lines.append(
            f"  {split:8}{row['records']:9,}{row['clips']:9,}{row['hours']:9,.2f}"
            f"{row['captions_per_clip']:15.2f}  {report['origin'][split]}"
        )
    lines += [
        f"  left out {entry['count']:,}: {reason}" for reason, entry in report["skipped"].items()
    ]
    if report["sounds_without_caption"]:
        lines.append(f"  sounds that no caption names: {report['sounds_without_caption']:,}")
    if report["clipped"]:
        lines.append(f"  kept, but clipped at full scale: {len(report['clipped']):,}")
    lines += _leak_lines("clips", report["leaks"])
    lines += _leak_lines("clips with the very sound of another", report["same_sounds"])
    if not report["splits"]["valid"]["clips"]:
        lines.append("  no clips for validation")
    return "\n".join([*lines, f"  names in {path}"])


def _leak_lines(what: str, leaks: list[dict]) -> list[str]:
    pairs = Counter((leak["split"], leak["also_in"], leak["removed"]) for leak in leaks)
    return [
        f"  {what} in {split} as well as in {also_in}: {count:,}"
        f" ({f'removed from {split}' if removed else 'left there'})"
        for (split, also_in, removed), count in sorted(pairs.items())
    ]
