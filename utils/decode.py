"""Sound files to blocks of samples: by libsndfile where it reads a file to its end, else by PyAV.

A length that a file states is compared with what is decoded, never trusted. Recorders and pipes
write none, or 0, and of several streams one after the other it is the first one's.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from enum import Enum

import numpy as np

from utils.errors import UserError

Take = Callable[[int, np.ndarray], None]  # is given the rate (Hz) and a block [n, channels]

BLOCK_SAMPLES = 1 << 20  # samples decoded at a time, over all channels: memory stays bounded
WHOLE = 0.98  # of the stated length, or of the file's bytes, counts as all of it
STREAMED_SIZE = 0x7FFFF000  # sizes from here on are what writers to a pipe put for "unknown"
# PyAV's containers that hold sound in themselves. Others are lists of further files or addresses.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,"
    "wav,wv"
)
STATED_LENGTH = ("mov", "matroska", "flac")  # those whose length is written and not an estimate


class AudioError(UserError):
    """A sound that cannot be used; `reason` is short, and the same for all files of a kind."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


class End(Enum):
    """Where a file's sound ended."""

    STATED = "where the file states it"
    LATER = "after the end that the file states"
    NOT_FOUND = "the file goes on, and not for this decoder"


def by_libsndfile(descriptor: int, take: Take) -> End:
    """Decodes an open file, with all streams of an Ogg file.

    By descriptor: the content decides the format, not the name, whatever bytes are in the name.
    Raises AudioError where the file is cut off, soundfile.LibsndfileError for unknown content.
    """
    import soundfile

    os.lseek(descriptor, 0, os.SEEK_SET)
    size = os.fstat(descriptor).st_size
    with soundfile.SoundFile(descriptor, closefd=False) as file:
        _take_all(file, take, descriptor)
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if end >= WHOLE * size or (file.format == "WAV" and _chunk_at(descriptor, end, size)):
            estimated = file.format == "MP3" and not _mp3_states_its_length(descriptor)
            return End.NOT_FOUND if estimated else End.STATED
        if file.format != "OGG":
            return End.NOT_FOUND
    later = _ogg_streams(os.pread(descriptor, size, 0))[1:]
    for stream in later:
        with soundfile.SoundFile(io.BytesIO(stream)) as file:
            _take_all(file, take, descriptor)
    return End.LATER if later else End.NOT_FOUND


def _take_all(file, take: Take, descriptor: int) -> None:
    stated, frames = _stated_frames(file, descriptor), 0
    while len(block := file.read(BLOCK_SAMPLES // file.channels, "float32", always_2d=True)):
        frames += len(block)
        take(file.samplerate, block)
    if frames < WHOLE * stated:
        raise AudioError("truncated", f"{frames} of {stated} samples")


def _ogg_streams(content: bytes) -> list[bytes]:
    """The streams of an Ogg file that follow one another (RFC 3533: a chained file)."""
    starts, begins, at = [], False, 0
    while content[at : at + 4] == b"OggS" and len(content) >= at + 27:
        flags, segments = content[at + 5], content[at + 26]
        if flags & 2 and not begins:  # first page of a stream; several in a row run side by side
            starts.append(at)
        begins = bool(flags & 2)
        at += 27 + segments + sum(content[at + 27 : at + 27 + segments])
    return [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]


def _stated_frames(file, descriptor: int) -> int:
    """How many frames the header promises; libsndfile itself takes a cut wav or ogg as it is."""
    log = file.extra_info
    if "lacks an end-of-stream bit" in log:  # the last page of an Ogg stream carries it
        raise AudioError("truncated", "the Ogg stream has no end")
    if file.format == "MP3" and not _mp3_states_its_length(descriptor):
        return 0  # libsndfile's figure supposes that all frames are as long as the first
    cut = re.search(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if cut is None or int(cut[1]) >= STREAMED_SIZE:
        return file.frames
    return round(file.frames * int(cut[1]) / max(int(cut[2]), 1))


def _mp3_states_its_length(descriptor: int) -> bool:
    """Whether the first frame, which follows the ID3 tag, is one that holds the length."""
    tag = os.pread(descriptor, 10, 0)
    start = 0
    if tag[:3] == b"ID3":
        start = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    return re.search(rb"Xing|Info|VBRI", os.pread(descriptor, 2048, start)) is not None


def _chunk_at(descriptor: int, start: int, size: int) -> bool:
    """Whether another chunk follows the samples of a wav, rather than more samples."""
    name, length = struct.unpack("<4sI", os.pread(descriptor, 8, start + start % 2).ljust(8, b"\0"))
    return re.fullmatch(rb"[\w ]{4}", name) is not None and start + length <= size


def by_pyav(descriptor: int, take: Take, ignore_length: bool = False) -> None:
    """Decodes the first sound track of an open file, across joined streams and damaged packets.

    `ignore_length` reads a wav to the file's end. Raises AudioError where there is nothing to
    decode, or less than the file states.
    """
    import av

    os.lseek(descriptor, 0, os.SEEK_SET)
    _refuse_joined(descriptor)
    options = {"format_whitelist": CONTAINERS, **({"ignore_length": "1"} if ignore_length else {})}
    try:
        with (
            open(descriptor, "rb", closefd=False) as file,
            av.open(file, options=options) as container,
        ):
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise AudioError("not decodable", "no sound track")
            seconds = sum(_decode_stream(container, stream, take))
            stated = _stated_seconds(container, stream)
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError("not decodable", str(error)) from None
    if seconds < WHOLE * stated:
        raise AudioError("truncated", f"{seconds:.2f} of {stated:.2f} s")


def _decode_stream(container, stream, take: Take):
    """Hands over all blocks; yields the seconds of each."""
    import av

    kind, resampler, parts = None, None, []

    def flush():
        block = np.concatenate(parts, axis=1).T
        parts.clear()
        take(kind[0], np.ascontiguousarray(block))
        return len(block) / kind[0]

    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # a damaged packet; what is decoded in all is compared with what is stated
        for frame in frames:
            if (found := (frame.sample_rate, frame.layout.name, frame.format.name)) != kind:
                if parts:  # a stream of another kind follows
                    yield flush()
                kind, resampler = found, av.AudioResampler(format="fltp")
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
            if sum(part.size for part in parts) >= BLOCK_SAMPLES:
                yield flush()
    if parts:
        yield flush()


def _stated_seconds(container, stream) -> float:
    if not container.format.name.startswith(STATED_LENGTH):
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1  # else it may be the pictures' length
    return container.duration / 1e6 if alone and container.duration else 0.0


def _refuse_joined(descriptor: int) -> None:
    """Of wavs written one after the other, all decoders read only the first."""
    for kind, length in ((b"RIFF", "<I"), (b"FORM", ">I")):
        head = os.pread(descriptor, 8, 0)
        if head[:4] == kind and len(head) == 8:
            (size,) = struct.unpack(length, head[4:])
            if os.pread(descriptor, 4, 8 + size + size % 2) == kind:
                raise AudioError("several files joined into one")
