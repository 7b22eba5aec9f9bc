"""The files below a data set's folder, found once; links are followed."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from utils.decode import AudioError
from utils.errors import UserError

# What is decoded, the surest first. A file that captions.csv names may have any suffix; this is for
# finding those of AudioCaps, of which downloaders leave the video's sound as it was.
SOUND_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"),
    *(".m4a", ".aac", ".mka", ".webm", ".mp4", ".m4b", ".mkv", ".mov", ".3gp", ".wma", ".wv"),
)
NEAREST_SOUGHT = 50  # names; comparing one with tens of thousands takes a while


class SoundFolder:
    """All files below `root`, by their path relative to it, with "/" between the parts.

    Links are followed, wherever they lead. `apart` names a folder below the root that holds no
    sounds (the mels).
    """

    def __init__(self, root: str | Path, apart: str | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"{root}: no such folder of sounds; see dataset_path in the config")
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._unreadable: set[str] = set()
        self._hints = 0
        self._scan("", (os.path.realpath(self.root),), apart)
        self._composed = {
            unicodedata.normalize("NFC", name): name
            for name in sorted(self._files)
            if not name.isascii()
        }
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_uid: dict[str, list[str]] = defaultdict(list)
        self._sounds = self._surest_first()
        for name in self._sounds:
            self._by_stem[_stem(name)].append(name)
            self._by_uid[without_suffix(below_wav(name))].append(name)

    def _scan(self, folder: str, above: tuple[str, ...], apart: str | None) -> None:
        """`above`: the real paths of the folder and of those that hold it."""
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except PermissionError:
            self._unreadable.add(folder)
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_link = entry.is_symlink()
            if not (os.path.isdir(entry.path) if is_link else entry.is_dir()):
                self._files.add(name)
                continue
            self._folders.add(name)
            real = os.path.realpath(entry.path) if is_link else os.path.join(above[-1], entry.name)
            if name != apart and real not in above:  # a link upward would go round for ever
                self._scan(name, (*above, real), apart)

    def _surest_first(self) -> list[str]:
        """The sound files; those in wav/ come first, and the surest kinds."""
        kinds = {suffix: number for number, suffix in enumerate(SOUND_SUFFIXES)}
        sounds = [(kinds.get(suffix_of(name)), name) for name in self._files]
        found = [(n == below_wav(n), kind, n) for kind, n in sounds if kind is not None]
        return [name for *_, name in sorted(found)]

    @property
    def sounds(self) -> tuple[str, ...]:
        """All sound files, by what their names end in."""
        return tuple(self._sounds)

    def path(self, name: str) -> Path:
        return self.root / name

    def look_up(self, name: str) -> str:
        """The file that a user calls `name`, relative to the folder or to wav/ in it.

        An absolute name must lie in the folder; blanks around it and "\\\\" for "/" are put right
        where there is no such file otherwise. Raises AudioError where there is none to be used.
        """
        reason = "not a file name"
        for form in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
            if not form or "\0" in form:
                continue
            places = self._places(form)
            for place in places:
                composed = unicodedata.normalize("NFC", place)
                if place in self._files:
                    return place
                if composed in self._composed:
                    return self._composed[composed]
            reason = self._why_not(places)
        raise AudioError(reason)

    def _places(self, name: str) -> tuple[str, ...]:
        """Where a file of that name may be; none where the name leads out of the folder."""
        if re.match("[A-Za-z]:/", name):  # of Windows
            return ()
        if os.path.isabs(name):
            name = os.path.relpath(name, self.root.absolute())
        name = os.path.normpath(name)
        return () if name.split("/")[0] == ".." else (name, f"wav/{name}")

    def _why_not(self, places: tuple[str, ...]) -> str:
        if not places:
            return "outside the folder"
        for place in places:
            parts = place.split("/")
            above = ["/".join(parts[:count]) for count in range(len(parts) + 1)]
            if self._unreadable.intersection(above):
                return "no permission"
            if place in self._folders:
                return "not a file"
        return "missing"

    def hint(self, name: str) -> str:
        """What was looked for under a name that is not there, and the nearest that is."""
        name = name.strip().replace("\\", "/")
        self._hints += 1
        if self._hints > NEAREST_SOUGHT:
            return ""
        same_stem = self._by_stem.get(_stem(name)) or self._by_stem.get(os.path.basename(name))
        likely = f"wav/{below_wav(name)}"
        near = same_stem or difflib.get_close_matches(likely, self._sounds, 1, 0.5)
        nearest = f"the nearest name is {near[0]}" if near else "no name is like it"
        places = self._places(name)
        if not places:
            return f"names begin at the data set's folder; {nearest}"
        return f"looked for {' and '.join(places)}; {nearest}"

    def count_beside(self, used: Iterable[str]) -> int:
        """How many sound files there are beside those in `used`."""
        return len(set(self._sounds).difference(used))

    def find_stem(self, stem: str, favoured: tuple[str, ...]) -> str | None:
        """A sound file called `stem` whatever its suffix, in whatever folder.

        Of several, one below a folder of the `favoured` names comes first.
        """
        found = self._by_stem.get(stem, [])
        near = [name for name in found if set(favoured).intersection(name.split("/")[:-1])]
        return next(iter(near or found), None)

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


def without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]


def below_wav(name: str) -> str:
    return name.removeprefix("wav/")


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _stem(name: str) -> str:
    return os.path.basename(without_suffix(name))
