"""How well sounds come back: wav -> mel [-> VAE] -> vocoder; in figures, to hear and to see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from config.schema import MelConfig
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import load_vae
from models.tta.evaluation.clips import Clip, measure
from models.tta.evaluation.features import Ear, embed
from models.tta.evaluation.page import render
from models.tta.evaluation.protocol import PROTOCOLS
from models.tta.evaluation.scores import Row, row_scores
from models.tta.evaluation.spectra import stft_error
from models.vocoders.load import GRIFFIN_LIM, load_vocoder
from processors.dataset import SILENCE
from processors.mel import MelExtractor, check_mel, mel_of_wav, shortest_wav
from processors.mel_picture import write_mel_picture
from utils.audio import read_wav, write_wav
from utils.errors import UserError
from utils.progress import progress
from utils.table import text_table

MOST_SECONDS = 10  # of a clip
AUDIBLE = 80 / (20 / math.log(10))  # 80 dB in the natural logarithm
MEANING = (
    "Log-mel error: mean difference of the natural-log mels, where the original is within 80 dB of"
    " its loudest. STFT error: spectral convergence and difference of log magnitudes, at three"
    " resolutions. Level: RMS in dB against the original's. All are better nearer to 0"
)
Chain = Callable[[Tensor], Tensor]  # mel [1, n_mel, frames] -> wav [1, frames * hop_size]


@dataclass(frozen=True)
class Difference:
    """What came back of a clip, against the clip itself."""

    log_mel: float
    stft: float
    level: float  # dB


def check_vocoder(name: str, clips: Sequence[Clip], mel: MelConfig, folder: Path) -> str:
    """Takes sounds to mels and back by the vocoder, beside Griffin-Lim; see `check_chains`.

    Args:
        name: "griffin_lim", or what `load_vocoder` takes besides.

    Raises:
        UserError: the vocoder is for another mel, or there is no sound to try it with.
    """
    chains = {GRIFFIN_LIM: load_vocoder(GRIFFIN_LIM, mel)}
    if name != GRIFFIN_LIM:
        chains["vocoder"] = load_vocoder(name, mel)
    return check_chains(name, chains, clips, mel, folder)


def check_vae(
    run: Path,
    vocoder_name: str,
    clips: Sequence[Clip],
    mel: MelConfig,
    folder: Path,
    ears: Sequence[Ear] = (),
    cache: Path = Path(),
) -> str:
    """The same with the vocoder alone, and with a VAE before it; see `check_chains`.

    Args:
        run: a folder of a VAE's weights.
        vocoder_name: what `load_vocoder` takes.

    Raises:
        UserError: VAE or vocoder is for another mel, or there is no sound to try them with.
    """
    saved = load_vae(run)
    check_mel(mel, saved.mel, run)
    vocoder = load_vocoder(vocoder_name, mel)
    chains = {"vocoder": vocoder, "vae_vocoder": lambda x: vocoder(reconstructed(saved.vae, x))}
    title = f"{run}, vocoder {vocoder_name}"
    return check_chains(title, chains, clips, mel, folder, ears, cache)


def check_chains(
    title: str,
    chains: Mapping[str, Chain],
    clips: Sequence[Clip],
    mel: MelConfig,
    folder: Path,
    ears: Sequence[Ear] = (),
    cache: Path = Path(),
) -> str:
    """Takes sounds to mels and back, writes what comes out, returns tables of the differences.

    <folder>/00_original.wav and .png, then 00_<name>.wav and .png of each chain, 01_...;
    index.html shows and plays them.

    Args:
        chains: what makes a sound of a mel, by name.
        clips: those that cannot be decoded, or are too short for a mel, are left out.
        ears: taggers that hear what came back, beside the originals.
        cache: where what they heard is kept.

    Raises:
        UserError: there is no sound to try it with.
    """
    used: dict[str, Clip] = {}  # by the beginning of its files' names
    differences: dict[str, dict[str, Difference]] = {}  # of a clip, for each chain
    folder.mkdir(parents=True, exist_ok=True)
    for clip in progress(clips, title="mels and back", unit="clip"):
        try:
            wav = read_wav(clip.path, mel.sample_rate)[: MOST_SECONDS * mel.sample_rate]
        except UserError:
            continue
        if len(wav) < shortest_wav(mel):
            continue
        start = f"{len(used):02d}"
        used[start], differences[start] = clip, {}
        _write(folder / f"{start}_original", wav, mel)
        for name, chain in chains.items():
            result, differences[start][name] = round_trip(wav, chain, mel)
            _write(folder / f"{start}_{name}", result, mel)
    if not used:
        raise UserError("none of the clips can be decoded; there is nothing to try a vocoder with")
    tables = [_means(differences, _heard(chains, used, folder, ears, cache))]
    if any(clip.kind for clip in used.values()):
        tables.append(_levels(differences, used))
    heard = [f"KL, FD, IS and kind: what {ear.backbone.name} hears" for ear in ears]
    meaning = "; ".join([MEANING, *heard])
    page = folder / "index.html"
    render(
        page,
        "vocoder_check",
        title=f"wav, mel, wav again: {title}",
        intro=f"{meaning}.",
        clips=used,
        differences=differences,
        tables=tables,
    )
    return "\n".join([title, *map(text_table, tables), meaning, f"to listen: {page}"])


def _write(path: Path, wav: np.ndarray, mel: MelConfig) -> None:
    """<path>.wav and its picture, <path>.png."""
    write_wav(f"{path}.wav", wav, mel.sample_rate)
    write_mel_picture(f"{path}.png", mel_of_wav(wav, mel))


def round_trip(wav: np.ndarray, chain: Chain, mel: MelConfig) -> tuple[np.ndarray, Difference]:
    """wav [T] -> what its mel sounds like [T // hop_size x hop_size], and how that differs."""
    extract, wav = MelExtractor(mel), torch.from_numpy(wav)
    original = extract(wav[None])
    result = chain(original)
    audible = original > original.max() - AUDIBLE
    error = (extract(result) - original).abs()[audible].mean().item()
    same = wav[: result.shape[1]]
    levels = [measure(x[:, None].numpy(), mel.sample_rate).level for x in (result[0], same)]
    stft = stft_error(result[0], same)
    return result[0].numpy(), Difference(error, stft, levels[0] - levels[1])


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, mel: Tensor) -> Tensor:
    """What the VAE makes of mels [B, n_mel, frames], at the posterior's mode; the same shape."""
    frames = mel.shape[2]
    whole = F.pad(mel[:, None], (0, -frames % vae.config.downsampling), value=SILENCE)
    return vae.decode(vae.encode(whole).mode())[:, 0, :, :frames].float()


# ---------------------------------------------------------------- what is said of all


def _means(differences: dict[str, dict[str, Difference]], heard: dict[str, dict]) -> list[list]:
    """A line for each chain: the means over the clips, and what the taggers say."""
    columns = list(dict.fromkeys(name for row in heard.values() for name in row))
    rows = [["", "level", "log-mel error", "STFT error", *columns]]
    for name in next(iter(differences.values())):
        each = [of_clip[name] for of_clip in differences.values()]
        level = f"{np.mean([one.level for one in each]):+.2f} dB"
        errors = [np.mean([one.log_mel for one in each]), np.mean([one.stft for one in each])]
        said = (heard.get(name, {}).get(column) for column in columns)
        cells = ["–" if value is None else f"{value:.3f}" for value in (*errors, *said)]
        rows.append([name, level, *cells])
    if heard:  # of the originals themselves, too
        said = (heard["original"].get(column) for column in columns)
        rows.append(
            ["original", *"–––", *("–" if value is None else f"{value:.3f}" for value in said)]
        )
    return rows


def _levels(differences: dict[str, dict[str, Difference]], used: dict[str, Clip]) -> list[list]:
    """A line for each kind: its clips and their mean difference of level by each chain."""
    names = list(next(iter(differences.values())))
    rows = [["level by kind, dB", "clips", *names]]
    for kind in sorted({clip.kind for clip in used.values() if clip.kind}):
        each = [differences[start] for start, clip in used.items() if clip.kind == kind]
        means = [np.mean([of_clip[name].level for of_clip in each]) for name in names]
        rows.append([kind, len(each), *(f"{mean:+.2f}" for mean in means)])
    return rows


def _heard(
    chains: Mapping[str, Chain],
    used: dict[str, Clip],
    folder: Path,
    ears: Sequence[Ear],
    cache: Path,
) -> dict[str, dict[str, float]]:
    """Each tagger's FD, KL, IS and kind of the originals and of each chain's sounds."""
    protocol, found = PROTOCOLS["arion"], {}
    kinds = [clip.kind for clip in used.values()]
    pairs = [(place, place) for place in range(len(used))]
    for ear in ears if len(used) > 1 else ():
        title = f"hearing, {ear.backbone.name}"
        features = {}
        with progress(total=len(used) * (len(chains) + 1), title=title, unit="clip") as bar:
            for name in ("original", *chains):
                clips = [Clip(start, folder / f"{start}_{name}.wav") for start in used]
                features[name] = embed(ear, clips, protocol, cache, bar.update)
        originals = features["original"]
        for name, of_chain in features.items():
            paired = () if name == "original" else pairs
            row = Row(of_chain, paired, kinds, reference_kinds=kinds)
            for metric, score in row_scores(ear.backbone.name, row, originals, protocol, 0).items():
                if metric in ("IS", "kind") or (metric in ("FD", "KL") and paired):
                    found.setdefault(name, {})[f"{metric} {ear.backbone.name}"] = score.value
    return found
