"""The studio without its page: models, whose turn it is, and what was made."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from config.schema import MelConfig
from models.tta.ldm.outputs import Numbering
from models.tta.ldm.source import Source
from models.tta.studio.history import History, Kept
from models.tta.studio.shelf import EDITOR, MODEL, Shelf, Wish
from models.tta.studio.turns import Job, Turns
from processors.mel import mel_of_wav, shortest_wav
from processors.mel_picture import write_mel_picture
from utils.audio import check_length, read_recording, read_wav, write_recording
from utils.decode import AudioError
from utils.errors import UserError

QUICKSTART = Path("quickstart")  # what egs/tta/quickstart/run.sh makes
SOURCES = "sources"  # in a person's folder: what was taken to be changed
SAME = "the same sound again, bit for bit"


@contextlib.contextmanager
def said_of(path: str | Path, name: str) -> Iterator[None]:
    """A UserError says `name` for the path, which says nothing to one who sent a sound."""
    try:
        yield
    except UserError as error:
        said = str(error).removeprefix(f"{path}: ")
        of_sound = isinstance(error, AudioError) or said != str(error)
        raise UserError(f"{name}: {said}" if of_sound else said) from None


class Studio:
    """Takes what people ask for, and keeps what becomes of it.

    A person has a history; a session waits for a turn. Where nobody logs in, all are one person.
    """

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.shelf, self.history, self.turns = shelf, History(folder), Turns()
        self.limits = shelf.limits
        self._held: dict[str, set[tuple[str, str]]] = {}  # by whom: persons, and what they sent

    @property
    def quickstart(self) -> bool:
        """Whether the quickstart's page is there."""
        return (QUICKSTART / "index.html").is_file()

    def submit(
        self,
        person: str,
        session: str,
        text: object,
        model: object,
        vocoder: object,
        count: object,
        **sampling: object,
    ) -> list[Job]:
        """A job for each sound; its result is what is kept. UserError: see `Shelf.wishes`."""
        model = self.shelf.chosen(model, MODEL)
        wishes = self.shelf.wishes(text, model, vocoder, count, **sampling)
        works = [functools.partial(self._make, person, wish) for wish in wishes]
        return self.turns.submit(session, works)

    def _make(self, person: str, wish: Wish, job: Job) -> Kept:
        sound, made_by = self.shelf.make(wish, job.on_step)
        rate = made_by["mel"]["sample_rate"]
        return self.history.add(person, sound, wish.sampling, made_by, rate)

    # ------------------------------------------------------------ changing a sound

    def take(self, person: str, path: str | Path, holder: str | None = None) -> str:
        """Copies a sound, in whatever format, as a wav into the person's folder; its name there.

        A `holder` says by `let_go` that it needs it no more. Raises UserError where there is no
        usable sound, or one that is too long.
        """
        with said_of(path, "this file"):
            check_length(path, self.limits.seconds)
            recording = read_recording(path)
        folder = self.history.of(person) / SOURCES
        folder.mkdir(parents=True, exist_ok=True)
        content = recording.samples.tobytes() + str(recording.sample_rate).encode()
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.wav"
        if holder is not None:
            self._held.setdefault(holder, set()).add((person, name))
        # Another job may be reading what is there by that name.
        beside = folder / f"{Path(name).stem}.{secrets.token_hex(4)}.part"
        write_recording(beside, recording)
        os.replace(beside, folder / name)
        return name

    def let_go(self, holder: str) -> None:
        """Removes what this one took, unless a receipt names it or another holds it."""
        for person, name in self._held.pop(holder, ()):
            held = any((person, name) in others for others in list(self._held.values()))
            if not held and not self.history.names(person, name):
                for path in (self.history.of(person) / SOURCES).glob(f"{Path(name).stem}.*"):
                    path.unlink(missing_ok=True)

    def source(self, person: str, name: str) -> Path:
        """Where what was taken lies. Raises UserError where it does not."""
        path = self.history.of(person) / SOURCES / name
        if not re.fullmatch(r"[0-9a-f]{16}\.(wav|png)", name) or not path.is_file():
            raise UserError("there is no such sound")
        return path

    def draw(self, person: str, name: str, mel: MelConfig) -> dict[str, Any]:
        """Draws what was taken, in this mel; what its axes need, as in a receipt."""
        path = self.source(person, name)
        with said_of(path, "this sound"):
            wav = read_wav(path, mel.sample_rate)
        if len(wav) < shortest_wav(mel):
            raise UserError(f"this sound is too short: {len(wav) / mel.sample_rate:.3f} s")
        write_mel_picture(path.with_suffix(".png"), mel_of_wav(wav, mel))
        return {"duration": len(wav) / mel.sample_rate, "mel": dataclasses.asdict(mel)}

    def edit(
        self,
        person: str,
        session: str,
        name: str,
        text: object,
        model: object,
        vocoder: object,
        instruct: bool = False,
        **sampling: object,
    ) -> Job:
        """A job that changes what was taken under `name`; its result is what is kept.

        `sampling` says how, as SamplingSettings knows it; with `instruct` the text does, to an
        editor. Raises UserError: see `Shelf.wishes` and `Shelf.instruction`.
        """
        path = self.source(person, name)
        model = self.shelf.chosen(model, EDITOR if instruct else MODEL)
        with said_of(path, "this sound"):
            if instruct:
                wish = self.shelf.instruction(text, model, vocoder, str(path), **sampling)
            else:
                mel = self.shelf.settings(model).mel
                source = Source.read(path, mel.sample_rate)
                half = source.recording.sample_rate / 2
                if sampling.get("task") and sampling.get("cutoff") is None and half < mel.fmax:
                    sampling["cutoff"] = half
                extend = sampling.get("extend") or 0
                if not isinstance(extend, (int, float)):
                    raise UserError(f"extend: {extend!r} must be a number of seconds")
                duration = source.seconds + extend
                how = {"audio": str(path), "duration": duration, **sampling}
                [wish] = self.shelf.wishes(text, model, vocoder, 1, **how)
        return self.turns.submit(session, [functools.partial(self._make, person, wish)])[0]

    # ------------------------------------------------------------ once more

    def replay(self, person: str, session: str, kept: Kept) -> Job:
        """A job that makes a sound again from its receipt; its result says how alike they are.

        Raises UserError where the receipt cannot be read, or asks for more than one may.
        """
        if kept.fault:
            raise UserError(kept.fault)
        wish = Wish.of_receipt(kept.receipt)
        self.limits.check(wish.sampling)
        if audio := wish.sampling.audio:  # of what this person sent, and of no other folder
            own = str(self.source(person, Path(audio).name))
            wish = replace(wish, sampling=replace(wish.sampling, audio=own))
        work = self._compare(person, wish, kept)
        return self.turns.submit(session, [work])[0]

    def _compare(self, person: str, wish: Wish, kept: Kept) -> Callable[[Job], str]:
        def work(job: Job) -> str:
            sound, made_by = self.shelf.make(wish, job.on_step, kept.receipt)
            with tempfile.TemporaryDirectory() as folder:
                rate = made_by["mel"]["sample_rate"]
                new = Numbering(Path(folder)).write(sound, wish.sampling, {}, rate).read_bytes()
            if new == self.history.file(person, f"{kept.number}.wav").read_bytes():
                return SAME
            before, now = kept.receipt.get("device"), made_by["device"]
            on = f": it was made on {before}, this is {now}" if before != now else ""
            return f"not the same bits as before{on}"

        return work
