"""Long sounds made of their mels piece by piece, in memory that the length does not decide.

Needs nothing of this repository: the Griffin-Lim of an exported model carries these lines.
"""

from collections.abc import Callable

from torch import Tensor

WHOLE = 1024  # frames that are one piece: no model here is trained on more
PIECE = 512  # frames of each piece of more than that, besides its neighbours


def by_pieces(wav_of: Callable[[int, int], Tensor], frames: int, context: int) -> Tensor:
    """wav_of(0, frames), one piece after the other.

    Each piece is made with its neighbours on both sides and cut out, so that joining leaves no
    seam: its samples are those of the whole but for rounding.

    Args:
        wav_of: first and last frame (exclusive) -> [..., (last - first) * hop_size].
        context: frames on either side of a sample's own that it depends on.

    Returns:
        [..., frames * hop_size]
    """
    if frames <= WHOLE:
        return wav_of(0, frames)
    wav = None
    for start in range(0, frames, PIECE):
        stop = min(start + PIECE, frames)
        first, last = max(start - context, 0), min(stop + context, frames)
        part = wav_of(first, last)
        hop = part.shape[-1] // (last - first)
        if wav is None:
            wav = part.new_empty(*part.shape[:-1], frames * hop)
        kept = slice((start - first) * hop, (stop - first) * hop)
        wav[..., start * hop : stop * hop] = part[..., kept]
    return wav
