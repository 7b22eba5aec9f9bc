"""Preprocessing by several workers beside one core that only decodes, resamples and transforms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from bins.benchmark.measure import Line, Part, Ratio, seconds_of
from bins.benchmark.synthetic import DATASET, SECONDS
from config.load import load_config
from config.schema import MelConfig

RATE, CHANNELS = 44100, 2  # of a clip, as most are on the web
KINDS = ("wav", "flac", "ogg")
DISTINCT = 60
FLOOR = "decode + resample + STFT, one core"


def measure(
    config: str, overrides: list[str], clips: int, workers: int, root: Path, device: torch.device
) -> Part:
    """Of `clips` made-up clips of ten seconds for each worker; a third are wav, flac and ogg.

    The floor is timed on one worker's share, before and after the real thing; the faster counts.
    """
    mel = load_config(config, overrides).preprocess.mel
    sounds = write_clips(root / DATASET, clips * workers)
    command = [sys.executable, "bins/tta/preprocess.py", "--config", config, *overrides]
    command += [f"dataset={DATASET}", f"preprocess.processed_dir={root}"]
    command += ["--num_workers", str(workers)]

    def preprocess() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def only_the_needful() -> None:
        for sound in sounds[:clips]:
            decode_resample_transform(sound, mel)

    floor = seconds_of(only_the_needful, device)
    ours = seconds_of(preprocess, device)
    floor = min(floor, seconds_of(only_the_needful, device))
    about = f"{len(sounds)} clips of {SECONDS} s, {RATE} Hz, {CHANNELS} channels"
    lines = [
        Line(f"this recipe, {workers} worker(s)", ours, len(sounds)),
        Line(FLOOR, floor, clips),
    ]
    # A worker does `clips` of them, as the one core does.
    ratio = Ratio(f"clips/s / ({workers} x those of one core)", floor / ours, "at least 0.8")
    return Part("preprocess", about, lines, [ratio])


def decode_resample_transform(sound: Path, mel: MelConfig) -> np.ndarray:
    """What cannot be left out, by the libraries that do it: the spectrum [frames, bins]."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
    mono = samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32)
    wav = soxr.resample(mono, rate, mel.sample_rate, "HQ")
    frames = np.lib.stride_tricks.sliding_window_view(wav, mel.n_fft)[:: mel.hop_size]
    return np.fft.rfft(frames * np.hanning(mel.n_fft).astype(np.float32))


def write_clips(folder: Path, clips: int) -> list[Path]:
    """Noise of changing loudness, and its captions.csv; the files, of which DISTINCT differ."""
    import soundfile

    (folder / "wav").mkdir(parents=True)
    random = np.random.default_rng(0)
    loudness = np.sin(np.linspace(0, 20, SECONDS * RATE))[:, None] ** 2
    files = [f"{number}.{KINDS[number % len(KINDS)]}" for number in range(clips)]
    for file in files[:DISTINCT]:
        noise = random.uniform(-0.5, 0.5, (SECONDS * RATE, CHANNELS))
        soundfile.write(folder / "wav" / file, noise * loudness, RATE)
    for number, file in enumerate(files[DISTINCT:]):
        os.link(folder / "wav" / files[number % DISTINCT], folder / "wav" / file)
    rows = [f"{file},Noise number {number}" for number, file in enumerate(files)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *rows]) + "\n")
    return [folder / "wav" / file for file in files]
