"""Which metrics of which backbone make up the row of one set of sounds, each with its error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.tta.evaluation import metrics
from models.tta.evaluation.features import Features
from models.tta.evaluation.protocol import Protocol

HIGHER_IS_BETTER = ("IS", "CLAP", "kind")
HALVINGS = 5


@dataclass(frozen=True)
class Score:
    value: float
    error: float | None = None  # standard error over clips, by bootstrap


@dataclass(frozen=True)
class Row:
    """A set of sounds as one backbone hears it, beside the references."""

    heard: Features
    # (place in `heard`, place in the references) of clips that belong together
    pairs: Sequence[tuple[int, int]] = ()
    kinds: Sequence[str | None] = ()  # what each clip should be
    texts: Tensor | None = None  # CLAP's embedding of each clip's caption [N, D]
    texts_of: Sequence[int] = ()  # places in `heard` that `texts` belong to
    reference_kinds: Sequence[str | None] = field(default=())


def row_scores(
    backbone: str, row: Row, references: Features, protocol: Protocol, replicates: int
) -> dict[str, Score]:
    """Metric -> score, the metrics that `protocol` wants and this backbone can give.

    Args:
        replicates: bootstrap draws; 0: no errors.
    """
    found: dict[str, Score] = {}

    def add(name: str, score: Callable[..., float], *sizes: int) -> None:
        wanted = name in protocol.metrics and min(sizes) > 1
        if wanted:
            everything = (torch.arange(size) for size in sizes)
            error = metrics.standard_error(score, sizes, replicates) if replicates > 1 else None
            found[name] = Score(score(*everything), error)

    heard, count, of = row.heard, len(row.heard), len(references)
    distance = "FAD" if backbone == "vggish" else "FD"
    if backbone != "clap":
        add(distance, lambda i, j: frechet(heard.take(i), references.take(j)), count, of)
    if backbone == "clap":
        _clap_scores(row, references, add)
    if heard.logits is not None:
        _tagger_scores(row, references, protocol, add)
    return found


def frechet(a: Features, b: Features) -> float:
    return metrics.frechet_distance(a.matrix, b.matrix)


def _clap_scores(row: Row, references: Features, add) -> None:
    if row.texts is not None:
        cosines = metrics.cosine(row.heard.take(row.texts_of).matrix, row.texts)
        add("CLAP", lambda i: float(cosines[i].mean()), len(cosines))
    a, b = row.heard.matrix, references.matrix
    width = metrics.median_distance(b) if len(b) > 1 else 0.0
    if width > 0:
        add("KAD", lambda i, j: metrics.kernel_distance(a[i], b[j], width), len(a), len(b))


def _tagger_scores(row: Row, references: Features, protocol: Protocol, add) -> None:
    logits, count = row.heard.logits, len(row.heard)
    if row.pairs:
        q, p = logits[[i for i, _ in row.pairs]], references.logits[[j for _, j in row.pairs]]
        values = {
            "KL": metrics.softmax_kl(p, q, protocol.kl_epsilon),
            "KL reverse": metrics.softmax_kl(q, p),
            "KL sigmoid": metrics.sigmoid_kl(p, q)
            if protocol.sigmoid_kl == "both sides"
            else metrics.one_sided_sigmoid_kl(p, q),
        }
        for name, each in values.items():
            add(name, lambda i, each=each: float(each[i].mean()), len(each))
    splits, seed = protocol.is_splits, protocol.is_seed
    if count >= splits:

        def inception(index: Tensor) -> float:
            return float(metrics.inception_score(logits[index], splits, seed).mean())

        add("IS", inception, count)
    right = kinds_heard(row, references)
    if right is not None:
        add("kind", lambda i: float(right[i].mean()), len(right))


def kinds_heard(row: Row, references: Features) -> Tensor | None:
    """1 for each clip whose nearest kind, among the references' means, is its own, else 0 [N]."""
    known = [i for i, kind in enumerate(row.reference_kinds) if kind]
    asked = [i for i, kind in enumerate(row.kinds) if kind]
    kinds = [row.reference_kinds[i] for i in known]
    if not asked or len(set(kinds)) < 2:
        return None
    same = row.heard is references
    heard = metrics.nearest_kind(
        row.heard.take(asked).matrix, references.take(known).matrix, kinds, leave_out=same
    )
    return torch.tensor([float(h == row.kinds[i]) for h, i in zip(heard, asked, strict=True)])


def half_against_half(backbone: str, references: Features, protocol: Protocol) -> dict[str, Score]:
    """The distances that a perfect model would still get: means over random halvings."""
    if len(references) < 4:
        return {}
    found: dict[str, list[float]] = {}
    for halving in range(HALVINGS):
        draw = torch.Generator().manual_seed(halving)
        order = torch.randperm(len(references), generator=draw)
        one, two = references.take(order[::2]), references.take(order[1::2])
        for name, score in row_scores(backbone, Row(one), two, protocol, 0).items():
            if name in ("FD", "FAD", "KAD"):
                found.setdefault(name, []).append(score.value)
    return {
        name: Score(float(torch.tensor(values).mean()), float(torch.tensor(values).std()))
        for name, values in found.items()
    }


def shuffled(row: Row) -> Row:
    """The same sounds, each with the reference and the caption of the one half the list away."""
    places = [j for _, j in row.pairs]
    half = len(places) // 2
    pairs = [(i, j) for (i, _), j in zip(row.pairs, places[half:] + places[:half], strict=True)]
    texts = None if row.texts is None else row.texts.roll(len(row.texts) // 2, 0)
    return Row(row.heard, pairs, texts=texts, texts_of=row.texts_of)
