"""What two runs have to share: weights and optimizers; up to rounding, also logged metrics."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CLOCK = ("train/seconds_per_step", "train/waiting")  # these may differ


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """All tensors of final/ and of the checkpoint of `step`, by file and name."""
    found = {}
    for folder in (run / "final", run / "checkpoints" / f"step-{step:08d}"):
        for file in sorted(folder.rglob("*.safetensors")):
            for name, tensor in load_file(file).items():
                found[f"{file.relative_to(run)}: {name}"] = tensor
    return found


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve that TensorBoard shows, clocks left out."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = sorted(set(events.Tags()["scalars"]) - set(CLOCK))
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def assert_same(run: Path, other: Path, step: int) -> None:
    """Bit for bit the same tensors. Curves may differ, but hold each step once."""
    ours, theirs = tensors(run, step), tensors(other, step)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []
    for tag, points in scalars(run).items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), tag


def assert_close(run: Path, other: Path, step: int, tolerance: float) -> None:
    """The same tensors and curves up to rounding."""
    ours, theirs = tensors(run, step), tensors(other, step)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=name
        )
    curves, others = scalars(run), scalars(other)
    assert curves.keys() == others.keys()
    for tag, points in curves.items():
        torch.testing.assert_close(
            torch.tensor(points), torch.tensor(others[tag]), rtol=tolerance, atol=tolerance, msg=tag
        )
