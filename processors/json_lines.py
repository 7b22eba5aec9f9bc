"""JSON values by the million: one array of text, mapped from disk, and not an object for each.

A list of two million records takes 1.5 GB in every process, and reading it takes half a minute.
What is kept here is derived from files that stay the contract, and is made anew when they change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processors.cache import content_key
from utils.files import write_bytes

# What is written first into a file of arrays; to be raised where one of them comes to mean another
# thing, or is made by another rule, so that a file of before is made anew.
VERSION = 1
HEADER, ALIGNED = 1024, 8  # bytes: before the arrays of a file; each begins at a multiple of
AT_A_TIME = 1000  # values that are read together
SEPARATOR = b", "  # of json.dumps, so that the whole text is that of a list
Arrays = dict[str, np.ndarray]


class JsonLines(Sequence):
    """JSON values, read one by one when they are asked for; slices are lists.

    Attributes:
        text: uint8, the values as `content_key` writes them, with separators.
        starts: int64 [values + 1], where each begins; the last one is past the last separator.
        digest: `content_key` of a list of the same values.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], file: Path | None = None) -> None:
        """Of arrays as `arrays_of` makes them, and the file that they are mapped from."""
        self.text, self.starts = arrays["text"], arrays["starts"]
        self.digest, self._file = arrays["digest"].tobytes().decode(), file

    @staticmethod
    def arrays_of(values: Iterable[Any]) -> Arrays:
        text, starts = bytearray(), [0]
        for value in values:
            text += json.dumps(value, sort_keys=True).encode() + SEPARATOR
            starts.append(len(text))
        whole = memoryview(text)[: max(len(text) - len(SEPARATOR), 0)]
        digest = hashlib.sha256(b"[[")
        digest.update(whole)
        digest.update(b"]]")
        return {
            "text": np.frombuffer(text, np.uint8),
            "starts": np.array(starts, np.int64),
            "digest": np.frombuffer(digest.hexdigest()[:12].encode(), np.uint8),
        }

    @classmethod
    def of(cls, values: Iterable[Any]) -> JsonLines:
        return cls(cls.arrays_of(values))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            chosen = range(*number.indices(len(self)))
            if chosen.step != 1 or not chosen:
                return [self[n] for n in chosen]
            first, end = self.starts[chosen.start], self.starts[chosen.stop] - len(SEPARATOR)
            return json.loads(b"[%b]" % self.text[first:end].tobytes())
        number = range(len(self))[operator.index(number)]
        first, end = self.starts[number], self.starts[number + 1] - len(SEPARATOR)
        return json.loads(self.text[first:end].tobytes())

    def __iter__(self) -> Iterator[Any]:
        """Many at a time, which is ten times as quick as one by one."""
        for first in range(0, len(self), AT_A_TIME):
            yield from self[first : first + AT_A_TIME]

    def __reduce__(self) -> tuple:
        """Another process maps the same pages, where there are any."""
        arrays = {"text": self.text, "starts": self.starts}
        arrays["digest"] = np.frombuffer(self.digest.encode(), np.uint8)
        return (JsonLines, (arrays,)) if self._file is None else (mapped_lines, (self._file,))


def mapped_lines(file: Path) -> JsonLines:
    """The values kept in a file. Raises OSError or ValueError where it is gone or damaged."""
    return JsonLines(mapped(file), file)


def digest_of(values: Sequence[Any]) -> str:
    """`content_key` of the values, which are not read where they are JsonLines."""
    return values.digest if isinstance(values, JsonLines) else content_key(values)


class Mapped(Sequence):
    """What `function` makes of each item, when it is asked for."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.function(self.items[number])

    def __iter__(self) -> Iterator[Any]:
        return map(self.function, self.items)


# ---------------------------------------------------------------- arrays in a file


def mapped(file: Path) -> Arrays:
    """All arrays of a file, mapped.

    Raises OSError or ValueError where it is gone, damaged, or of another version.
    """
    # A plain array: slices of numpy's own class for what is mapped take ten times as long.
    whole = np.memmap(file, np.uint8, "r").view(np.ndarray)
    version, header = json.loads(whole[:HEADER].tobytes())
    if version != VERSION:
        raise ValueError(f"{file}: of version {version}")
    arrays, at = {}, HEADER
    for name, (dtype, shape) in header.items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = whole[at : at + size].view(dtype).reshape(shape)
        at += size + -size % ALIGNED
    return arrays


def kept(file: Path, make: Callable[[], Arrays]) -> tuple[Arrays, Path | None]:
    """The arrays in `file`, which `make` makes where `mapped` does not give them.

    Beside them the file that they are mapped from, None where it could not be written and they are
    in this process's memory.
    """
    with contextlib.suppress(OSError, ValueError):
        return mapped(file), file
    return keep(file, make())


def keep(file: Path | None, arrays: Arrays) -> tuple[Arrays, Path | None]:
    """Writes a file of arrays, whole or not at all, in place of what is there; as `kept` gives it.

    None as the file keeps nothing. Who has mapped what was there before still has that.
    """
    if file is None:
        return arrays, None
    header = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    parts: list[bytes] = [json.dumps([VERSION, header]).encode().ljust(HEADER)]
    for array in arrays.values():
        parts += [array.tobytes(), bytes(-array.nbytes % ALIGNED)]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, b"".join(parts))
        return mapped(file), file
    except (OSError, ValueError):
        return arrays, None
