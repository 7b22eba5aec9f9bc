"""What became of the triplets that were asked for: preprocess_report.json and a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from config.edits_schema import EditTask
from config.schema import EditsExperiment
from preprocessors.edits.plan import counts_of
from preprocessors.edits.sources import Pools
from preprocessors.records import Skip
from preprocessors.report import grouped
from processors.metadata import SPLITS
from utils.table import text_table


def edits_report(
    config: EditsExperiment,
    records: dict[str, list[dict]],
    beds: Pools,
    events: Pools,
    skipped: Iterable[Skip],
    unused: Iterable[Skip],
) -> dict:
    """The report as plain JSON values; equal input gives an equal report.

    Args:
        skipped: clips that no triplet could be made of.
        unused: triplets that came to nothing.
    """
    settings = config.preprocess
    seconds = settings.segment_frames * settings.hop_size / settings.sample_rate
    return {
        "dataset": config.dataset[0],
        "seconds": round(seconds, 4),
        "splits": {
            split: {
                "triplets": dict(Counter(record["Task"] for record in records[split])),
                "asked_for": counts_of(config.edits)[split],
                "hours": round(len(records[split]) * seconds / 3600, 4),
                "scaled": sum(record["Gain"] < 1 for record in records[split]),
                **{
                    f"{name}_recordings": len({s.recording for s in pools[split]})
                    for name, pools in (("bed", beds), ("event", events))
                },
            }
            for split in SPLITS
        },
        "sounds_left_out": grouped(skipped),
        "triplets_left_out": grouped(unused),
    }


def edits_table(report: dict, path: Path) -> str:
    """The report for the terminal."""
    tasks = get_args(EditTask)
    splits = report["splits"]
    rows = [["", *tasks, "hours", "recordings of beds", "of events"]]
    for split, row in splits.items():
        counts = [f"{row['triplets'].get(task, 0):,}" for task in tasks]
        recordings = [f"{row[f'{name}_recordings']:,}" for name in ("bed", "event")]
        rows.append([split, *counts, f"{row['hours']:,.2f}", *recordings])
    total = sum(sum(row["triplets"].values()) for row in splits.values())
    lines = [
        f"{report['dataset']}: {total:,} triplets of {report['seconds']:.2f} s",
        text_table(rows, indent=2),
    ]
    scaled = sum(row["scaled"] for row in splits.values())
    if scaled:
        lines.append(f"  scaled down, both sounds of a pair alike, lest they clip: {scaled:,}")
    for what in ("triplets", "sounds"):
        for reason, entry in report[f"{what}_left_out"].items():
            lines.append(f"  {what} left out {entry['count']:,}: {reason}")
    for split in report["written_by_you"]:
        lines.append(f"  {split}.json: written by you, left as it is")
    return "\n".join([*lines, f"  names in {path}"])
