"""The files below a data set's folder, found once, with links that lead out of it refused."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from utils.audio import AudioError
from utils.errors import UserError

# What libsndfile decodes. A file that captions.csv names may have any suffix; this is for finding.
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf")


class SoundFolder:
    """All files below `root`, by their path relative to it, with "/" between the parts.

    Links to folders are not followed, except that `wav` itself may be one. Links to files are, as
    long as they stay inside. `apart` names a folder below the root that holds no sounds (the mels).
    """

    def __init__(self, root: str | Path, apart: str | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"{root}: no such folder of sounds; see dataset_path in the config")
        self._inside = [os.path.realpath(self.root), os.path.realpath(self.root / "wav")]
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._outside: set[str] = set()
        self._unreadable: set[str] = set()
        self._scan("", apart)
        self._composed = {
            unicodedata.normalize("NFC", name): name
            for name in sorted(self._files)
            if not name.isascii()
        }
        self._by_stem = self._index(lambda name: os.path.basename(without_suffix(name)))
        self._by_uid = self._index(lambda name: without_suffix(below_wav(name)))

    def _scan(self, folder: str, apart: str | None) -> None:
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except PermissionError:
            self._unreadable.add(folder)
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir()
            if is_link and not self._stays_inside(entry.path):
                self._outside.add(name)
            elif not is_folder:
                self._files.add(name)
            elif not is_link or name == "wav":
                self._folders.add(name)
                if name != apart:
                    self._scan(name, apart)

    def _stays_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == place or real.startswith(place + os.sep) for place in self._inside)

    def _index(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        """Sound files, and links that are refused, by `key`; those in wav/ come first."""
        index = defaultdict(list)
        for name in sorted(self._files | self._outside, key=lambda n: (n == below_wav(n), n)):
            if os.path.splitext(name)[1].lower() in SOUND_SUFFIXES:
                index[key(name)].append(name)
        return index

    def path(self, name: str) -> Path:
        return self.root / name

    def look_up(self, name: str) -> str:
        """The file that a user calls `name`, relative to the folder or to wav/ in it.

        Raises AudioError with the reason where there is none that may be used.
        """
        if not name or "\0" in name:
            raise AudioError("not a file name")
        if ".." in name.split("/"):
            raise AudioError("outside the folder")
        if os.path.isabs(name):
            name = os.path.relpath(name, self.root)
        name = os.path.normpath(name)
        for place in (name, f"wav/{name}"):
            if place in self._files:
                return place
            composed = unicodedata.normalize("NFC", place)
            if composed in self._composed:
                return self._composed[composed]
        raise AudioError(self._why_not(name))

    def _why_not(self, name: str) -> str:
        for place in (name, f"wav/{name}"):
            parts = place.split("/")
            above = ["/".join(parts[:count]) for count in range(len(parts) + 1)]
            if ".." in parts or self._outside.intersection(above):
                return "outside the folder"
            if self._unreadable.intersection(above):
                return "no permission"
            if place in self._folders:
                return "not a file"
        return "missing"

    def count_beside(self, used: Iterable[str]) -> int:
        """How many sound files there are beside those in `used`."""
        names = {name for found in self._by_uid.values() for name in found}
        return len(names.difference(used, self._outside))

    def find_stem(self, stem: str, favoured_folder: str) -> str | None:
        """A sound file called `stem` whatever its suffix, in whatever folder.

        Of several, one below a folder called `favoured_folder` comes first, then by name.
        """
        found = self._by_stem.get(stem, [])
        favoured = [name for name in found if favoured_folder in name.split("/")[:-1]]
        return next(iter(favoured or found), None)

    def find_uid(self, uid: str) -> str | None:
        """The sound file wav/<uid>.* or <uid>.*; a Uid may carry its file's suffix."""
        for name in (f"wav/{uid}", uid):
            if name in self._files:
                return name
        return next(iter(self._by_uid.get(uid, [])), None)

    def size_and_time(self, name: str) -> tuple[int, int]:
        """Bytes and time of change (ns) of a file; zeros where they may not be asked for."""
        try:
            status = os.stat(self.root / name)
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns

    def is_outside(self, name: str) -> bool:
        """Whether a found file is a link that leads out of the folder."""
        return name in self._outside


def without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]


def below_wav(name: str) -> str:
    return name.removeprefix("wav/")
