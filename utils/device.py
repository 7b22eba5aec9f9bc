"""What the device at hand is good at."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

import torch

from utils.errors import UserError

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes (getrusage(2))


def precision(setting: str, device: torch.device) -> str:
    """accelerate's name for `train.mixed_precision`: "auto" is bf16 where it has instructions."""
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "no"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "no"


def _cpu_multiplies_bf16() -> bool:
    """oneDNN takes bf16 wherever there is AVX-512; without instructions for it, it is emulated.

    Then a step takes more than twice as long as in float32.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.cpu._is_avx512_bf16_supported()


def compiles(setting: bool, device: torch.device) -> bool:
    """Whether to compile what `train.compile` allows to: on a GPU."""
    return setting and device.type == "cuda"


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


RESIDENT_SHARE = 0.05  # of a device's memory, for each cache that stays there


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether data of that size may stay in the device's memory beside what trains there."""
    if device.type != "cuda":
        return False
    return nbytes <= RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a batch without waiting for it: from pinned memory, or the copy waits for the GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def graphed(
    function: Callable[..., torch.Tensor], *examples: torch.Tensor
) -> Callable[..., torch.Tensor]:
    """`function` as one CUDA graph, for calls with tensors shaped as `examples`.

    A step of a sampler is a thousand small kernels; a graph launches them at once. Elsewhere, and
    under autocast, `function` itself. Not with torch's make_graphed_callables, whose graphs keep
    their memory until Python looks for cycles.
    """
    device = examples[0].device
    if device.type != "cuda" or torch.is_autocast_enabled("cuda"):
        return function
    inputs = [example.clone() for example in examples]
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # loads kernels and libraries, which a graph cannot hold
            function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = function(*inputs)

    def replay(*values: torch.Tensor) -> torch.Tensor:
        for place, value in zip(inputs, values, strict=True):
            place.copy_(value)
        graph.replay()
        return output.clone()  # the next call writes over it

    return replay


def peak_memory(device: torch.device) -> int:
    """Bytes, at most so far: of the device where it is a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def memory_format(device: torch.device) -> torch.memory_format:
    """channels_last for a GPU's tensor cores; on a CPU its group norm is 30 times slower."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def best_device(name: str | None = None) -> torch.device:
    """The device of this name, or the best one there is."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not usable here: {reason}") from None
    return device
