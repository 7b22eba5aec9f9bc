"""Small sounds, data sets and configs for the tests of the data's way."""

from pathlib import Path

import numpy as np

from config.load import load_config
from config.schema import Config, MelConfig
from processors.clips import Clip
from processors.mel_folder import MelFolder
from utils.audio import write_wav

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
MEL = MelConfig(RATE, 1024, 1024, 256, 80, 0.0, 8000.0)


def noise(seconds: float = 0.2, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise of a level between 0.1 and 0.5, float32 [samples]."""
    random = np.random.default_rng(seed)
    return random.uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def write_sound(path: Path, seed: int = 0, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, noise(seconds, seed), RATE)
    return path


def write_coded(path: Path, wav: np.ndarray, rate: int = 48000) -> Path:
    """Writes a sound as a downloader or a recorder does: m4a (AAC), webm or ogg (Opus), mp3.

    mp3 is written as to a pipe, with a varying bitrate and no frame that states the length.
    """
    import av

    codecs = {".m4a": "aac", ".mp4": "aac", ".mp3": "libmp3lame"}
    options = {"write_xing": "0"} if path.suffix == ".mp3" else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "ogg" if path.suffix == ".opus" else None
    with av.open(str(path), "w", format=kind, options=options) as container:
        codec = codecs.get(path.suffix, "libopus")
        form = "flt" if codec == "libopus" else "fltp"
        stream = container.add_stream(codec, rate=rate, layout="mono", format=form)
        if codec == "libmp3lame":
            stream.codec_context.flags |= 2  # AV_CODEC_FLAG_QSCALE
            stream.codec_context.global_quality = 2 * 118
        samples = wav.astype(np.float32)[None]
        for start in range(0, samples.shape[1], 960):
            block = np.ascontiguousarray(samples[:, start : start + 960])
            frame = av.AudioFrame.from_ndarray(block, format=form, layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_config(processed_dir: Path, *overrides: str) -> Config:
    """The shipped stage-1 config for the data set "Sounds" in `processed_dir`."""
    given = {"preprocess.processed_dir": str(processed_dir), "dataset": "Sounds"}
    given |= {name: value for name, _, value in (text.partition("=") for text in overrides)}
    texts = [f"{name}={value}" for name, value in given.items()]
    return load_config(ROOT / "egs/tta/autoencoderkl/exp_config.json", texts)


def clips_of(sounds: Path) -> list[Clip]:
    stats = [(path.name, path.stat()) for path in sorted(sounds.iterdir())]
    return [Clip(name[:-4], name, s.st_size, s.st_mtime_ns) for name, s in stats]


def make_mels(mels: Path, sounds: Path) -> None:
    """Two workers make the mels of a folder of sounds."""
    MelFolder(mels, sounds, MEL).make(clips_of(sounds), 2, "Sounds")


def make_mels_in_process(monkeypatch) -> None:
    """Lets one worker be this process, which saves the start of another; more are processes."""
    from processors import mel_folder

    run_tasks = mel_folder.run_tasks

    def run(tasks, num_workers):
        return (task.run() for task in tasks) if num_workers == 1 else run_tasks(tasks, num_workers)

    monkeypatch.setattr(mel_folder, "run_tasks", run)


def captions_csv(folder: Path, text: str) -> Path:
    """Writes <folder>/captions.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "captions.csv").write_bytes(text.encode())
    return folder
