"""Generated sounds beside references: features first, then every row of the table in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from models.tta.evaluation import metrics
from models.tta.evaluation.clips import Clip, Facts, Noise, faults, pair
from models.tta.evaluation.features import (
    Backbone,
    Ear,
    Features,
    embed,
    embed_texts,
    inspect,
)
from models.tta.evaluation.protocol import Protocol, list_hash, protocol_record
from models.tta.evaluation.scores import Row, half_against_half, row_scores, shuffled
from utils.errors import UserError
from utils.progress import progress

TOP = 3  # of the tagger's classes, shown for each clip
NOTE = (
    "FD, FAD, KAD: distance of all generated from all references; KL: of each clip from its"
    " reference; IS: clear and varied; CLAP: fits its caption; kind: share that is nearest to the"
    " references of its own kind. ± is one standard error over clips (of halvings in that row)."
)


@dataclass(frozen=True)
class Audible:
    """A set of clips that can be heard, and what was measured on them."""

    clips: list[Clip]
    facts: list[Facts]
    left_out: dict[str, list[str]]


@dataclass
class Evaluation:
    """One evaluation; `run` gives the result as JSON.

    Args:
        missing_files: references whose sound is not there.
        controls: more sets of generated sounds, by name, that get a row each.
        replicates: bootstrap draws.

    Attributes:
        heard: what `run` measured on each set, by the name of its row.
        features: of each backbone, the features of each set.
    """

    generated: Sequence[Clip]
    references: Sequence[Clip]
    split: str
    missing_files: Sequence[str]
    controls: Mapping[str, Sequence[Clip]]
    protocol: Protocol
    ears: Sequence[Ear]
    not_run: Sequence[Backbone]
    weights_dir: Path
    cache: Path
    replicates: int
    rows: dict[str, dict] = field(default_factory=dict)
    heard: dict[str, Audible] = field(default_factory=dict)
    features: dict[str, dict[str, Features]] = field(default_factory=dict)

    def run(self) -> dict:
        sets = {"reference": self.references, "generated": self.generated, **self.controls}
        heard = {name: self._inspect(name, clips) for name, clips in sets.items()}
        references, generated = heard["reference"], heard["generated"]
        for name, audible in heard.items():
            if len(audible.clips) < 2:
                raise UserError(
                    f"{name}: {len(audible.clips)} of {len(sets[name])} sounds can be heard, two"
                    f" are needed; left out: {audible.left_out}"
                )
        self.heard = heard = heard | self._made(generated, references)
        clips = [{"score": None, "heard": []} for _ in generated.clips]
        ranked_by = None
        for ear in self.ears:
            features = self.features[ear.backbone.name] = self._embed(ear, heard)
            ranked_by = self._fill(ear, heard, features, clips, ranked_by)
        return self._result(heard, clips, ranked_by)

    # ------------------------------------------------------------ hearing

    def _inspect(self, name: str, clips: Sequence[Clip]) -> Audible:
        with progress(total=len(clips), title=f"reading {name}", unit="clip") as bar:
            return Audible(*inspect(clips, self.protocol, self.cache, bar.update))

    def _made(self, generated: Audible, references: Audible) -> dict[str, Audible]:
        """Silence, and noise at the references' level, as many and as long as the generated."""
        rms = float(np.median([fact.rms for fact in references.facts]))
        made = {}
        for name, level in (("silence", 0.0), ("white noise", rms)):
            clips = [
                Noise(clip.uid, round(fact.seconds, 2), level, seed, clip.captions, clip.kind)
                for seed, (clip, fact) in enumerate(
                    zip(generated.clips, generated.facts, strict=True)
                )
            ]
            made[name] = Audible(clips, generated.facts, {})
        return made

    def _embed(self, ear: Ear, heard: Mapping[str, Audible]) -> dict[str, Features]:
        total = sum(len(audible.clips) for audible in heard.values())
        with progress(total=total, title=f"hearing, {ear.backbone.name}", unit="clip") as bar:
            return {
                name: embed(ear, audible.clips, self.protocol, self.cache, bar.update)
                for name, audible in heard.items()
            }

    # ------------------------------------------------------------ scoring

    def _fill(self, ear, heard, features, clips, ranked_by) -> str | None:
        """Adds one backbone's columns to every row, and its say on each generated clip."""
        references, known = features["reference"], heard["reference"].clips
        row = self._row(ear, heard["generated"].clips, features["generated"], known)
        self._add("generated", ear, row, references, replicates=self.replicates)
        kinds = [clip.kind for clip in known]
        own = Row(references, kinds=kinds, reference_kinds=kinds, **self._texts(ear, known))
        self._add("reference", ear, own, references, only=("IS", "CLAP", "kind"))
        halves = half_against_half(ear.backbone.name, references, self.protocol)
        self._note(f"reference, halves of {len(known) // 2}", ear, halves)
        for name in heard:
            if name not in ("reference", "generated"):
                other = self._row(ear, heard[name].clips, features[name], known)
                replicates = self.replicates if name in self.controls else 0
                self._add(name, ear, other, references, replicates=replicates)
        only = ("KL", "KL reverse", "KL sigmoid", "CLAP")
        self._add("shuffled captions", ear, shuffled(row), references, only=only)
        return self._judge(ear, row, references, clips, ranked_by)

    def _add(self, name, ear, row, references, replicates=0, only=None) -> None:
        scores = row_scores(ear.backbone.name, row, references, self.protocol, replicates)
        kept = {metric: score for metric, score in scores.items() if only is None or metric in only}
        self._note(name, ear, kept)

    def _note(self, name: str, ear: Ear, scores: Mapping) -> None:
        columns = {f"{metric} {ear.backbone.name}": asdict(s) for metric, s in scores.items()}
        self.rows.setdefault(name, {}).update(columns)

    def _row(self, ear: Ear, clips, features: Features, references) -> Row:
        pairs = pair(clips, references)
        return Row(
            features,
            list(pairs.items()),
            kinds_of(clips, references, pairs),
            reference_kinds=[clip.kind for clip in references],
            **self._texts(ear, captioned(clips, references, pairs)),
        )

    def _texts(self, ear: Ear, clips) -> dict:
        if ear.backbone.name != "clap" or not any(clip.captions for clip in clips):
            return {}
        places = [index for index, clip in enumerate(clips) if clip.captions]
        texts = embed_texts(ear, [clips[index].captions[0] for index in places], self.cache)
        return {"texts": texts, "texts_of": places}

    def _judge(self, ear: Ear, row: Row, references: Features, clips, ranked_by) -> str | None:
        """What this backbone says of each clip: classes heard, and a score to rank them by."""
        if row.heard.logits is not None and ear.labels and not any(c["heard"] for c in clips):
            for clip, order in zip(clips, row.heard.logits.argsort(1, True)[:, :TOP], strict=True):
                clip["heard"] = [ear.labels[i] for i in order.tolist()]
        if row.texts is not None:
            cosines = metrics.cosine(row.heard.take(row.texts_of).matrix, row.texts)
            ranked_by, scores = "CLAP", dict(zip(row.texts_of, cosines.tolist(), strict=True))
        elif ranked_by is None and row.pairs and row.heard.logits is not None:
            p = references.logits[[j for _, j in row.pairs]]
            q = row.heard.logits[[i for i, _ in row.pairs]]
            values = metrics.softmax_kl(p, q).tolist()
            ranked_by = f"KL {ear.backbone.name}"
            scores = {i: value for (i, _), value in zip(row.pairs, values, strict=True)}
        else:
            return ranked_by
        for index, clip in enumerate(clips):
            clip["score"] = scores.get(index)
        return ranked_by

    # ------------------------------------------------------------ result

    def _result(self, heard: Mapping[str, Audible], clips: list[dict], ranked_by) -> dict:
        generated, references = heard["generated"], heard["reference"]
        pairs = pair(generated.clips, references.clips)
        usual = float(np.median([fact.seconds for fact in references.facts]))
        if self.protocol.cut_seconds is not None:
            usual = max(usual, 2 * self.protocol.cut_seconds)
        checks = faults(generated.clips, references.clips, generated.facts, usual, pairs)
        checks |= {f"left out, {why}": names for why, names in generated.left_out.items()}
        checks |= {f"reference {why}": names for why, names in references.left_out.items()}
        checks |= {"reference not there": list(self.missing_files)} if self.missing_files else {}
        kinds = kinds_of(generated.clips, references.clips, pairs)
        told = captioned(generated.clips, references.clips, pairs)
        for index, (clip, fact) in enumerate(zip(told, generated.facts, strict=True)):
            clips[index] |= {
                "uid": clip.uid,
                "file": str(clip.path.absolute()),
                "reference": str(references.clips[pairs[index]].path.absolute())
                if index in pairs
                else None,
                "caption": clip.captions[0] if clip.captions else None,
                "kind": kinds[index],
                "level": fact.level,
            }
        listed = [(clip.uid, clip.content) for clip in references.clips]
        weights = {
            ear.backbone.name: {
                "file": ear.weights.name,
                "sha256": ear.sha256,
                "rate": ear.backbone.rate,
            }
            for ear in self.ears
        }
        about = {"list": list_hash(listed), "number": len(listed), "split": self.split}
        return {
            "protocol": protocol_record(self.protocol, about, len(generated.clips), weights),
            "generated": str(Path(self.generated[0].path).parent),
            "note": NOTE,
            "rows": {name: row for name, row in self.rows.items() if row},
            "pairs": len(pairs),
            "levels": levels(generated.facts, kinds, references),
            "checks": checks,
            "not_run": {
                backbone.name: {
                    "file": backbone.file,
                    "where": backbone.where,
                    "folder": str(self.weights_dir),
                }
                for backbone in self.not_run
            },
            "ranked_by": ranked_by,
            "clips": clips,
        }


def kinds_of(clips, references: Sequence[Clip], pairs: Mapping[int, int]) -> list[str | None]:
    """What each clip should be: the kind of its reference, or of any with its caption."""
    by_caption = {text: clip.kind for clip in references for text in clip.captions}
    return [
        references[pairs[index]].kind
        if index in pairs
        else by_caption.get(clip.captions[0] if clip.captions else None)
        for index, clip in enumerate(clips)
    ]


def captioned(clips, references: Sequence[Clip], pairs: Mapping[int, int]) -> list:
    """The clips, those without a caption with that of their reference."""
    return [
        replace(clip, captions=references[pairs[index]].captions)
        if not clip.captions and index in pairs
        else clip
        for index, clip in enumerate(clips)
    ]


def levels(facts: Sequence[Facts], kinds: Sequence[str | None], references: Audible) -> dict:
    """Mean dB RMS of generated and references, over all and by kind."""
    found = {}
    for kind in ["all", *sorted({k for k in kinds if k})]:
        ours = [f.level for f, k in zip(facts, kinds, strict=True) if kind in ("all", k)]
        theirs = [
            fact.level
            for fact, clip in zip(references.facts, references.clips, strict=True)
            if kind in ("all", clip.kind)
        ]
        a, b = (float(np.mean(values)) if values else None for values in (ours, theirs))
        apart = None if a is None or b is None else a - b
        found[kind] = {"number": len(ours), "generated": a, "reference": b, "difference": apart}
    return found
