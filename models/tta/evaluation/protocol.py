"""What a figure depends on besides the sounds: it is printed with it, stored with it, compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from utils.errors import UserError

VERSION = 1  # of what this project computes; raised when figures change


@dataclass(frozen=True)
class Protocol:
    """How sounds become what a backbone hears, and which variants of the metrics are taken."""

    name: str
    metrics: tuple[str, ...]  # in the order of the columns
    backbones: tuple[str, ...]
    channels: str = "mean"  # or "first"
    remove_mean: bool = False  # of the whole file's samples, before resampling
    resampler: str = "soxr-hq"  # or "torchaudio"
    cut_seconds: float | None = None
    pad_seconds: float = 0.0  # shorter sounds get zeros at their end
    pad_samples: int = 0  # the same, at the backbone's rate
    kl_direction: str = "reference||generated"
    kl_epsilon: float = 0.0  # added to the generated's probabilities
    sigmoid_kl: str = "both sides"  # or "one side", see metrics.one_sided_sigmoid_kl
    is_splits: int = 1
    is_seed: int | None = None  # None: not shuffled

    def prepare(self, samples: np.ndarray, rate: int, target: int) -> np.ndarray:
        """samples [T, channels] at `rate` -> wav [T'] float32 at `target`, as a backbone hears."""
        wav = samples[:, 0] if self.channels == "first" else samples.mean(axis=1)
        wav = wav - wav.mean() if self.remove_mean and len(wav) else wav
        wav = _resample(self.resampler, wav, rate, target)
        if self.cut_seconds is not None:
            wav = wav[: int(self.cut_seconds * target)]
        least = max(self.pad_samples, round(self.pad_seconds * target))
        return np.pad(wav, (0, max(0, least - len(wav)))).astype(np.float32)

    @property
    def hearing(self) -> str:
        """A hash of all that changes what `prepare` gives."""
        names = ("channels", "remove_mean", "resampler", "cut_seconds")
        parts = [getattr(self, name) for name in (*names, "pad_seconds", "pad_samples")]
        return hashlib.sha256(repr((VERSION, parts)).encode()).hexdigest()[:12]


def _resample(resampler: str, wav: np.ndarray, rate: int, target: int) -> np.ndarray:
    if rate == target or len(wav) == 0:
        return wav
    if resampler == "torchaudio":  # its default: a windowed sinc of six zero crossings
        import torch
        from torchaudio.functional import resample

        return resample(torch.from_numpy(wav), rate, target).numpy()
    import soxr

    return soxr.resample(wav, rate, target, "HQ")


PROTOCOLS = {
    "arion": Protocol(
        "arion",
        metrics=("FD", "FAD", "KL", "KL reverse", "KL sigmoid", "IS", "CLAP", "KAD", "kind"),
        backbones=("mn04", "cnn14_16k", "cnn14_32k", "ast", "vggish", "clap"),
        pad_seconds=1.0,  # VGGish hears nothing in less than 0.975 s
    ),
    # https://github.com/haoheliu/audioldm_eval with backbone="cnn14", at 8dc07ee
    "audioldm_eval": Protocol(
        "audioldm_eval",
        metrics=("FD", "FAD", "KL", "KL sigmoid", "IS"),
        backbones=("cnn14_16k", "vggish"),
        channels="first",
        remove_mean=True,
        resampler="torchaudio",
        pad_samples=32000,
        kl_epsilon=1e-6,
        sigmoid_kl="one side",
        is_splits=10,
        is_seed=2020,
    ),
    # https://github.com/hkchengrex/av-benchmark at 050a5cd, what it has of PANNs and VGGish
    "av-benchmark": Protocol(
        "av-benchmark",
        metrics=("FD", "FAD", "KL", "IS"),
        backbones=("cnn14_16k", "vggish"),
        remove_mean=True,
        resampler="torchaudio",
        cut_seconds=8.0,
        is_splits=10,
        is_seed=2020,
    ),
}


def find_protocol(name: str, seconds: float | None, backbones: Sequence[str] | None) -> Protocol:
    """A preset; with `seconds`, every sound is cut and padded to that length."""
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name} must be one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if seconds is not None:
        if not 1 <= seconds <= 600:
            raise UserError(f"--seconds {seconds} must be at least 1 and at most 600")
        protocol = replace(protocol, cut_seconds=seconds, pad_seconds=seconds)
    return replace(protocol, backbones=tuple(backbones)) if backbones else protocol


def list_hash(clips: Sequence[tuple[str, str]]) -> str:
    """Hash of a list of (name, hash of the content), whatever its order."""
    lines = "".join(f"{name}\t{content}\n" for name, content in sorted(clips))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def protocol_record(
    protocol: Protocol,
    references: Mapping[str, object],
    generated: int,
    weights: Mapping[str, Mapping[str, str]],
) -> dict:
    """All that two results must share to be compared, as JSON.

    Args:
        references: "list" (hash), "number", "split".
        generated: number of generated clips; FD and IS depend on it.
        weights: for each backbone, "file" and "sha256".
    """
    settings = asdict(protocol)
    del settings["metrics"], settings["backbones"]
    return {
        "version": VERSION,
        **settings,
        "references": dict(references),
        "generated": generated,
        "backbones": {name: dict(value) for name, value in weights.items()},
    }


def protocol_lines(record: Mapping) -> list[str]:
    """The record to read, in two lines and one for each backbone."""
    references = record["references"]
    length = [f"cut to {record['cut_seconds']:g} s"] if record["cut_seconds"] is not None else []
    if record["pad_seconds"] or record["pad_samples"]:
        samples, seconds = record["pad_samples"], record["pad_seconds"]
        padded = f"{samples} samples" if samples else f"{seconds:g} s"
        length += [f"zeros up to {padded}"]
    mean = ", mean removed" if record["remove_mean"] else ""
    shuffle = "" if record["is_seed"] is None else f" seed {record['is_seed']}"
    epsilon = f" + {record['kl_epsilon']:g}" if record["kl_epsilon"] else ""
    return [
        f"{record['name']}/{record['version']}  references {references['split']}"
        f" {references['number']} clips sha256 {references['list'][:12]}"
        f"  generated {record['generated']}",
        f"channels {record['channels']}{mean}  {', '.join(length) or 'whole length'}"
        f"  resampler {record['resampler']}  KL({record['kl_direction']}{epsilon}) softmax,"
        f" sigmoid {record['sigmoid_kl']}  IS {record['is_splits']} splits{shuffle}",
        *(
            f"{name} {value['rate']} Hz  {value['file']}  sha256 {value['sha256'][:12]}"
            for name, value in record["backbones"].items()
        ),
    ]


def differences(one: Mapping, two: Mapping, path: str = "") -> list[str]:
    """Where two records differ, as "references.number: 80, 975"; backbones of both count."""
    found = []
    for name in dict.fromkeys([*one, *two]):
        a, b = one.get(name), two.get(name)
        if path == "backbones." and (a is None or b is None):
            continue  # a backbone that only one of them has is not compared
        if name == "file" and path.startswith("backbones."):
            continue  # the weights are known by their hash
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{path}{name}.")
        elif a != b:
            found.append(f"{path}{name}: {a}, {b}")
    return found
