"""What the device at hand is good at."""

from __future__ import annotations

import torch


def precision(setting: str, device: torch.device) -> str:
    """accelerate's name for `train.mixed_precision`: "auto" is bf16 where it has instructions."""
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "no"
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"
    return "no"


def compiles(setting: str, device: torch.device) -> bool:
    """Whether `train.compile` asks for torch.compile: "auto" does on a GPU."""
    return setting == "on" or (setting == "auto" and device.type == "cuda")


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a batch without waiting for it."""
    return tensor.to(device, non_blocking=True)
