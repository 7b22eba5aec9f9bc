"""Times each part of the recipe beside its floor, or a plain way to do the same, or both.

    python bins/tta/benchmark.py [preprocess] [autoencoderkl] [audioldm] [inference]
        [--device cpu|cuda] [--latent 4_10_78|4_5_39] [--rounds N] [--num_workers N] [--json FILE]
        [key.path=value ...]
    python bins/tta/benchmark.py scale [--clips N ...] [--json FILE]

`scale` measures what a start costs by the number of clips. In the other parts, all models have
their full size and random weights, and data are synthetic; what is compared is timed in one run, in
turns where that does not take minutes, so that ratios hold on a busy machine as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import at_least_1, new_parser, parse_arguments, run_main
from utils.errors import UserError
from utils.progress import progress
from utils.table import text_table

if TYPE_CHECKING:  # heavy, and --help is at once
    import torch

    from bins.benchmark.measure import Part
    from bins.benchmark.scale import Start

PARTS = ("preprocess", "autoencoderkl", "audioldm", "inference")
# In float32, what a step of stage 1 keeps for its backward pass is 2 GiB a clip.
CPU_BATCH = {"autoencoderkl": 2}
SCALE = "scale"  # which is measured only where it is named
CLIPS = (10_000, 200_000)
CLIPS_PER_WORKER = 1000  # so that starting the workers weighs little


def main() -> None:
    arguments = parse()
    if arguments.device == "cpu":  # for accelerate
        os.environ["ACCELERATE_USE_CPU"] = "1"

    import torch

    from bins.benchmark.measure import machine
    from utils.device import best_device

    torch.set_float32_matmul_precision("high")  # as in training: "plain" is TF32 on a GPU
    device = best_device(arguments.device)
    report = {"machine": machine(device), "parts": []}
    print(described(report["machine"]))
    for name in arguments.parts:
        with tempfile.TemporaryDirectory() as root:
            if name == SCALE:
                report["starts"] = [vars(start) for start in starts(arguments.clips, Path(root))]
                write(report, arguments.json)
                continue
            part = measure(name, arguments, Path(root), device)
        gc.collect()  # what this part built is not the next one's
        show(part, report["machine"])
        report["parts"].append(dataclasses.asdict(part))
        write(report, arguments.json)


def write(report: dict, file: str | None) -> None:
    if file:
        Path(file).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="part or key.path=value",
        help=f"{', '.join(PARTS)}; default: all; or {SCALE}",
    )
    parser.add_argument("--device", help="cpu or cuda; default: the best there is")
    parser.add_argument(
        "--latent", choices=("4_10_78", "4_5_39"), default="4_10_78", help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=at_least_1, default=3, help="default: %(default)s")
    parser.add_argument("--num_workers", type=at_least_1, help="to preprocess; default: all cores")
    parser.add_argument(
        "--clips", type=at_least_1, nargs="+", default=CLIPS, help=f"to {SCALE}; default: {CLIPS}"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    arguments = parse_arguments(parser)
    arguments.overrides = [word for word in arguments.words if "=" in word]
    arguments.parts = [word for word in arguments.words if "=" not in word] or list(PARTS)
    unknown = [part for part in arguments.parts if part not in (*PARTS, SCALE)]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no part; there are {', '.join((*PARTS, SCALE))}")
    return arguments


def measure(name: str, arguments: argparse.Namespace, root: Path, device: torch.device) -> Part:
    """One part's figures."""
    from bins.benchmark import audioldm, autoencoderkl, inference, preprocess
    from bins.benchmark.measure import cores

    file = f"exp_config_latent_{arguments.latent}.json".replace("_latent_4_10_78", "")
    vae_config, config = f"egs/tta/autoencoderkl/{file}", f"egs/tta/audioldm/{file}"
    overrides, rounds = arguments.overrides, arguments.rounds
    if name == "preprocess":
        workers = arguments.num_workers or cores()
        return preprocess.measure(vae_config, overrides, CLIPS_PER_WORKER, workers, root, device)
    if device.type == "cpu" and name in CPU_BATCH:
        overrides = [f"train.batch_size={CPU_BATCH[name]}", *overrides]
    if name == "autoencoderkl":
        return autoencoderkl.measure(vae_config, overrides, rounds, root)
    if name == "audioldm":
        return audioldm.measure(config, vae_config, overrides, rounds, root)
    return inference.measure(config, vae_config, overrides, rounds, root, device)


def starts(clips: Sequence[int], root: Path) -> list[Start]:
    """Every start's figures, with their table."""
    from bins.benchmark import scale

    found = list(
        progress(
            scale.measure(clips, root),
            total=(1 + len(clips)) * len(scale.STARTS),
            title=SCALE,
            unit="start",
        )
    )
    print(f"\n{SCALE}: to the first step or sound; MiB beyond a start on {scale.FEW} clips")
    rows = [["", "clips", "seconds", "CPU s", "without caches", "MiB", "peak", "a worker", "files"]]
    least = {start.name: start for start in found if start.clips == scale.FEW}
    for start in found:
        base = least[start.name]
        rows.append(
            [
                *(start.name, f"{start.clips:,}", f"{start.seconds:.1f}", f"{start.cpu:.1f}"),
                "" if start.cold is None else f"{start.cold:.1f}",
                *(f"{start.resident - base.resident:.0f}", f"{start.peak - base.peak:.0f}"),
                "" if start.worker is None else f"{start.worker - base.worker:.0f}",
                str(start.files),
            ]
        )
    print(text_table(rows, indent=2))
    return found


def described(machine: dict[str, object]) -> str:
    rates = ", ".join(f"{name} {rate}" for name, rate in machine["matrix_gflops"].items())
    return (
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']},"
        f" {machine['precision']}, {machine['date']}\nmatrix product: {rates} GFLOP/s"
    )


def show(part: Part, machine: dict[str, object]) -> None:
    """A part's table, and what is to be reached."""
    print(f"\n{part.name}: {part.about}")
    rows = [["", "seconds", "clips/s", "GFLOP", "GFLOP/s", "GiB"]]
    for line in part.lines:
        speed = [f"{line.seconds:.2f}", f"{line.clips / line.seconds:.3g}"]
        work = [f"{line.gflop:.0f}", f"{line.gflop / line.seconds:.0f}"] if line.gflop else ["", ""]
        rows.append([line.name, *speed, *work, f"{line.gib:.1f}" if line.gib else ""])
    print(text_table(rows, indent=2))
    best = machine["matrix_gflops"][machine["precision"]]
    if part.lines[0].gflop:
        share = part.lines[0].gflop / part.lines[0].seconds / best
        print(f"  {share:.0%} of the matrix product's rate")
    for ratio in part.ratios:
        print(f"  {ratio.name}: {ratio.value:.2f} (to reach: {ratio.wanted})")


if __name__ == "__main__":
    run_main(main)
