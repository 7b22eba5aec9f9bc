"""The sounds to evaluate: which there are, what belongs together, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from config.schema import Config
from preprocessors.audiocaps import csv_files, read_audiocaps
from preprocessors.folder import SOUND_SUFFIXES, SoundFolder, below_wav, without_suffix
from preprocessors.own_sounds import CAPTIONS_FILE, read_own_sounds
from preprocessors.prepare import find_sounds
from preprocessors.records import Records
from processors.metadata import SPLITS, dataset_dir, meant_by, read_records, split_path
from utils.audio import FULL_SCALE, read_recording
from utils.errors import UserError

SILENT = -50.0  # dB RMS, from here down
CLIPPED = 1e-3  # share of samples at full scale, from here up
FAVOURED = ("test", "valid", "train")  # splits, where none is named
SHORT = 0.5  # of the references' median length


@dataclass(frozen=True)
class Clip:
    """A sound file. Its content, not its name, is what features are kept by."""

    uid: str
    path: Path
    captions: tuple[str, ...] = ()
    kind: str | None = None

    @cached_property
    def content(self) -> str:
        """Hash of the file's bytes; "" where it cannot be read."""
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    def read(self) -> tuple[np.ndarray, int]:
        """(samples [T, channels] float32, Hz). Raises UserError with a short reason."""
        import soundfile

        try:
            samples, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError):
            samples, rate = (), 0
        if len(samples) == 0:  # m4a, webm, a length of 0 in the header: what preprocessing reads
            try:
                recording = read_recording(self.path)
            except UserError as error:
                fault = str(error).removeprefix(f"{self.path}: ")
                raise UserError(f"not readable: {fault}") from None
            samples, rate = recording.samples, recording.sample_rate
        if not np.isfinite(samples).all():
            raise UserError("NaN or infinite samples")
        return samples, rate


@dataclass(frozen=True)
class Noise:
    """A clip that is made when it is heard: white noise, or silence at an RMS of 0."""

    uid: str
    seconds: float
    rms: float
    seed: int = 0
    captions: tuple[str, ...] = ()
    kind: str | None = None

    @property
    def content(self) -> str:
        text = f"noise {self.seconds:.3f} {self.rms:.5f} {self.seed if self.rms else 0}"
        return hashlib.sha256(text.encode()).hexdigest()

    def read(self) -> tuple[np.ndarray, int]:
        count = round(self.seconds * 32000)
        noise = np.random.default_rng(self.seed).standard_normal((count, 1)) * self.rms
        return noise.astype(np.float32), 32000


@dataclass(frozen=True)
class Facts:
    """What is measured on a file as it is, its channels averaged."""

    seconds: float
    rms: float
    full_scale_share: float

    @property
    def level(self) -> float:
        """dB RMS; -100 for what is lower yet."""
        return max(-100.0, 20 * math.log10(max(self.rms, 1e-9)))


def measure(samples: np.ndarray, rate: int) -> Facts:
    """samples [T, channels]."""
    rms = math.sqrt(float(np.square(samples.mean(axis=1), dtype=np.float64).mean()))
    share = float((np.abs(samples) >= FULL_SCALE).mean())
    return Facts(len(samples) / rate, rms, share)


# ---------------------------------------------------------------- which there are


def read_folder(folder: Path) -> list[Clip]:
    """Every sound below a folder, with the "text" of the receipt (<name>.json) beside it."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in SOUND_SUFFIXES and path.is_file()
    )
    if not files:
        where = "holds no sounds" if Path(folder).is_dir() else "is no folder"
        raise UserError(f"{folder} {where} ({', '.join(SOUND_SUFFIXES)})")
    return [_generated(Path(folder), file) for file in files]


def _generated(folder: Path, file: str) -> Clip:
    receipt = (folder / file).with_suffix(".json")
    try:
        told = json.loads(receipt.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        told = {}
    told = told if isinstance(told, dict) else {}
    uid, text = told.get("uid"), told.get("text")
    uid = uid if isinstance(uid, str) else without_suffix(below_wav(file))
    return Clip(uid, folder / file, (text,) if isinstance(text, str) else ())


def read_references(
    place: str, config: Config, split: str | None
) -> tuple[list[Clip], str, list[str]]:
    """The clips to compare with, their split ("all" without splits), and what is not there.

    Args:
        place: a folder of sounds, with or without captions.csv or AudioCaps' CSVs; or the name of
            a data set that was prepared.
        config: where data sets are.
        split: None: test where there is one, else valid.
    """
    if Path(place).is_dir():
        folder = SoundFolder(Path(place))
        if folder.path(CAPTIONS_FILE).exists():
            records = read_own_sounds(folder, "references")
        elif csv_files(folder):
            records = read_audiocaps(folder, "references")
        elif split is None:
            return read_folder(Path(place)), "all", []
        else:
            raise UserError(f"--split {split}: {place} has no {CAPTIONS_FILE} that names any")
    else:
        folder, records = _of_dataset(place, config, split)
    splits = {name: found for name, found in (records.splits | records.theirs).items() if found}
    split = split or next((name for name in FAVOURED if name in splits), None)
    if split not in splits:
        raise UserError(f"--split {split}: {place} has {', '.join(sorted(splits)) or 'no clips'}")
    captions: dict[str, list[str]] = defaultdict(list)
    kinds: dict[str, str | None] = {}
    for record in splits[split]:
        captions[record["Uid"]] += [record["Caption"]] if record["Caption"] else []
        kinds.setdefault(record["Uid"], record.get("kind") or None)
    found, missing = find_sounds(folder, records)
    clips = [
        Clip(clip.uid, folder.path(clip.file), tuple(captions[clip.uid]), kinds[clip.uid])
        for clip in found
        if clip.uid in captions
    ]
    if not clips:
        raise UserError(f"{place}: none of the sounds of its split {split!r} is there")
    left_out = [skip.name for skip in missing if skip.name in captions]
    return clips, split, [*left_out, *(skip.name for skip in records.skipped)]


def _of_dataset(name: str, config: Config, split: str | None) -> tuple[SoundFolder, Records]:
    """The sounds of a data set that was prepared, and the records of the split to take.

    Where there is none, of all, so that they can be named.
    """
    prepared = dataset_dir(config, name)
    paths = {split: split_path(config, name, split) for split in SPLITS}
    paths = {split: path for split, path in paths.items() if path.is_file()}
    if not paths:
        raise UserError(
            f"--reference {name}: neither a folder nor a data set that was prepared in"
            f" {prepared.parent}{meant_by(prepared)}"
        )
    wanted = [one for one in ([split] if split else FAVOURED) if one in paths]
    read = ({one: records} for one in wanted if (records := read_records(paths[one], name)))
    found = next(read, None) or {one: read_records(path, name) for one, path in paths.items()}
    folder = SoundFolder(Path(config.dataset_path.get(name, prepared)))
    return folder, Records({split: [] for split in SPLITS}, {}, theirs=found)


# ---------------------------------------------------------------- what belongs together


def pair(generated: Sequence[Clip], references: Sequence[Clip]) -> dict[int, int]:
    """Index of the reference of each generated clip that has one.

    By name where names agree (and captions do not contradict), else by caption: of several
    references with that caption one after the other, from the first again after the last.
    """
    by_name = {clip.uid: index for index, clip in enumerate(references)}
    by_caption: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(references):
        for caption in dict.fromkeys(clip.captions):
            by_caption[caption].append(index)
    pairs, used = {}, defaultdict(int)
    for index, clip in enumerate(generated):
        same_name = by_name.get(clip.uid)
        text = clip.captions[0] if clip.captions else None
        if same_name is not None and (
            text is None or text in references[same_name].captions or text not in by_caption
        ):
            pairs[index] = same_name
        elif text in by_caption:
            choices = by_caption[text]
            pairs[index] = choices[used[text] % len(choices)]
            used[text] += 1
    return pairs


def faults(
    generated: Sequence[Clip],
    references: Sequence[Clip],
    facts: Sequence[Facts],
    usual_seconds: float,
    pairs: dict[int, int],
) -> dict[str, list[str]]:
    """Names of generated clips, by what is wrong with them, and of references without one."""
    found: dict[str, list[str]] = {}
    if pairs:
        partners = set(pairs.values())
        found["missing"] = [c.uid for i, c in enumerate(references) if i not in partners]
        found["without a reference"] = [c.uid for i, c in enumerate(generated) if i not in pairs]
    found["duplicate"] = [
        " = ".join(names) for names in _same(generated, lambda clip: clip.content)
    ]
    both = list(zip(generated, facts, strict=True))
    found["silent"] = [c.uid for c, fact in both if fact.level <= SILENT]
    found["clipped"] = [c.uid for c, fact in both if fact.full_scale_share >= CLIPPED]
    found["too short"] = [c.uid for c, fact in both if fact.seconds < SHORT * usual_seconds]
    return found


def _same(clips: Iterable[Clip], key) -> list[list[str]]:
    groups = defaultdict(list)
    for clip in clips:
        groups[key(clip)].append(clip.uid)
    return [names for names in groups.values() if len(names) > 1]
