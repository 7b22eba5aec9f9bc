"""Sounds to embeddings and logits, once: what was computed is kept by the content of the file.

A backbone is known by name; its weights are a published file, which is looked for and never
replaced by another. `embed` can be killed and goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.tta.evaluation import cnn14, hub_models, mn04, vggish
from models.tta.evaluation.clips import Clip, Facts, measure
from models.tta.evaluation.protocol import Protocol
from utils.checkpoint import file_hash
from utils.errors import UserError
from utils.hub import HUB_NAME, model_folder

LABELS = ("labels.csv", "class_labels_indices.csv")  # AudioSet's names, beside the weights


@dataclass(frozen=True)
class Backbone:
    """A published network: wav [1, T] at `rate` Hz -> (embedding [n, D], logits [1, C] or None)."""

    name: str
    rate: int
    file: str  # as it is called where it is published
    where: str
    load: Callable[[Path], nn.Module]


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "mn04",
            mn04.RATE,
            "mn04_as_mAP_432.pt",
            "https://github.com/fschmid56/EfficientAT/releases/tag/v0.0.1 (4 MB)",
            mn04.load_mn04,
        ),
        Backbone(
            "cnn14_16k",
            16000,
            "Cnn14_16k_mAP=0.438.pth",
            "https://zenodo.org/record/3987831 (330 MB)",
            partial(cnn14.load_cnn14, window=512, hop=160),
        ),
        Backbone(
            "cnn14_32k",
            32000,
            "Cnn14_mAP=0.431.pth",
            "https://zenodo.org/record/3576403 (327 MB)",
            partial(cnn14.load_cnn14, window=1024, hop=320),
        ),
        Backbone(
            "vggish",
            vggish.RATE,
            "vggish-10086976.pth",
            "https://github.com/harritaylor/torchvggish/releases/tag/v0.1 (275 MB)",
            vggish.load_vggish,
        ),
        Backbone(
            "ast",
            hub_models.AST_RATE,
            "MIT/ast-finetuned-audioset-10-10-0.4593",
            "https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593 (346 MB)",
            hub_models.AST,
        ),
        Backbone(
            "clap",
            hub_models.CLAP_RATE,
            "laion/clap-htsat-unfused",
            "https://huggingface.co/laion/clap-htsat-unfused (614 MB)",
            hub_models.CLAP,
        ),
    )
}

TAGGERS = ("mn04", "cnn14_16k", "cnn14_32k", "ast")  # those that give logits of AudioSet's classes


@dataclass(frozen=True)
class Ear:
    """A backbone whose weights are at hand; the network itself is loaded when first needed."""

    backbone: Backbone
    weights: Path
    device: torch.device

    @cached_property
    def sha256(self) -> str:
        """Of a folder, that of its one file of weights, or of the hashes of all of them."""
        files = [self.weights]
        if self.weights.is_dir():
            forms = (sorted(self.weights.glob(form)) for form in ("*.safetensors", "*.bin"))
            files = next(filter(None, forms), [])
        hashes = [file_hash(file) for file in files]
        return (
            hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        )

    @cached_property
    def net(self) -> nn.Module:
        return self.backbone.load(self.weights).eval().to(self.device)

    @property
    def labels(self) -> list[str] | None:
        """AudioSet's names of the logits, where they lie beside the weights."""
        if self.backbone.name == "ast":
            return self.net.labels
        for name in LABELS:
            path = self.weights.parent / name
            if path.is_file():
                rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
                return [row[-1] for row in rows[1:]]
        return None


def find_ears(
    names: Sequence[str], chosen: Mapping[str, str], folder: Path, device: torch.device
) -> tuple[list[Ear], list[Backbone]]:
    """Backbones with weights at hand, and those without.

    Args:
        chosen: for a backbone, a file or folder of weights, or a hub name ("owner/model", or
            "owner/model/file"), which is fetched.
        folder: where published files are looked for by their names.
    """
    for name in [*names, *chosen]:
        if name not in BACKBONES:
            raise UserError(f"backbone {name!r} must be one of {', '.join(BACKBONES)}")
    ears, missing = [], []
    for backbone in (BACKBONES[name] for name in names):
        default = folder / Path(backbone.file).name
        if backbone.name in chosen:
            path = _path_of(chosen[backbone.name])
            if not path.exists():
                raise UserError(
                    f"--weights {backbone.name}={chosen[backbone.name]}: no such file; it is"
                    f" {backbone.file} from {backbone.where}"
                )
            ears.append(Ear(backbone, path, device))
        elif default.exists():
            ears.append(Ear(backbone, default, device))
        else:
            missing.append(backbone)
    return ears, missing


def _path_of(name: str) -> Path:
    parts = name.split("/")
    if Path(name).exists() or not HUB_NAME.fullmatch(name):
        return Path(name)
    if len(parts) == 2:
        return model_folder(name)
    file = "/".join(parts[2:])
    return model_folder("/".join(parts[:2]), (file,)) / file


# ---------------------------------------------------------------- what is kept


@dataclass(frozen=True)
class Features:
    """What one backbone hears in N clips."""

    embeddings: list[Tensor]  # of each clip [n, D]: one row, or one for each patch of VGGish
    logits: Tensor | None  # [N, C]

    def take(self, index: Sequence[int]) -> Features:
        index = list(map(int, index))
        logits = None if self.logits is None else self.logits[index]
        return Features([self.embeddings[i] for i in index], logits)

    @cached_property
    def matrix(self) -> Tensor:
        """All rows [sum of n, D]."""
        return torch.cat(self.embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)


def embed(ear: Ear, clips: Sequence[Clip], protocol: Protocol, cache: Path, progress) -> Features:
    """The features of clips that are known to be readable; `progress` is called for each."""
    place = cache / f"{ear.backbone.name}-{ear.sha256[:12]}-{protocol.hearing}"

    def hear(clip: Clip) -> dict[str, np.ndarray]:
        wav = protocol.prepare(*clip.read(), ear.backbone.rate)
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            embedding, logits = ear.net(torch.from_numpy(wav)[None].to(ear.device))
        heard = {"embedding": embedding} | ({} if logits is None else {"logits": logits})
        return {name: value.float().cpu().numpy() for name, value in heard.items()}

    kept = []
    for clip in clips:
        kept.append(_kept(place / f"{clip.content}.npz", partial(hear, clip)))
        progress()
    embeddings = [torch.from_numpy(entry["embedding"]) for entry in kept]
    logits = [torch.from_numpy(entry["logits"]) for entry in kept if "logits" in entry]
    return Features(embeddings, torch.cat(logits) if logits else None)


def embed_texts(ear: Ear, texts: Sequence[str], cache: Path) -> Tensor:
    """[N, D] of CLAP's text encoder; each text is encoded once."""
    place = cache / f"{ear.backbone.name}-{ear.sha256[:12]}-text"

    def encode(text: str) -> dict[str, np.ndarray]:
        return {"embedding": ear.net.embed_text(text).float().cpu().numpy()}

    hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
    paths = [place / f"{content}.npz" for content in hashes]
    kept = [_kept(path, partial(encode, text)) for path, text in zip(paths, texts, strict=True)]
    return torch.cat([torch.from_numpy(entry["embedding"]) for entry in kept])


def inspect(
    clips: Sequence[Clip], protocol: Protocol, cache: Path, progress
) -> tuple[list[Clip], list[Facts], dict[str, list[str]]]:
    """Clips that can be heard, what was measured on them, and the names of the others by reason."""
    usable, facts, left_out = [], [], {}
    for clip in clips:
        try:
            entry = _kept(cache / "facts" / f"{clip.content or 'none'}.npz", partial(_facts, clip))
        except UserError as error:
            left_out.setdefault(str(error), []).append(clip.uid)
        else:
            fact = Facts(*entry["facts"].tolist())
            heard = max(fact.seconds, protocol.pad_seconds, protocol.pad_samples / 32000)
            if heard * vggish.RATE < vggish.SHORTEST:
                shortest = vggish.SHORTEST / vggish.RATE
                left_out.setdefault(f"shorter than {shortest} s", []).append(clip.uid)
            else:
                usable.append(clip)
                facts.append(fact)
        progress()
    return usable, facts, left_out


def _facts(clip: Clip) -> dict[str, np.ndarray]:
    fact = measure(*clip.read())
    return {"facts": np.array([fact.seconds, fact.rms, fact.full_scale_share])}


def _kept(path: Path, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What lies at `path`, else what `compute` gives, which is put there whole or not at all."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            return dict(entry)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or damaged
    entry = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez(temporary, **entry)
    os.replace(temporary, path)
    return entry
