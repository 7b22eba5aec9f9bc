"""A tokenizer for a small T5, made from captions."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

WORD = re.compile(r"[^\W\d_]+")
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")  # in T5's order: their ids are 0, 1, 2


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of lower-cased words (Sennrich et al. 2016) in T5's form.

    Words that the captions lack fall apart into known pieces, down to letters; <unk> stands only
    for characters outside the captions, a-z and 0-9. The same captions give the same tokenizer,
    in any order.

    Args:
        captions: what to learn the pieces from.
        vocab_size: most tokens, special ones included. At least 64.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    captions = list(captions)
    alphabet = _alphabet(map(tokenizer.normalizer.normalize_str, captions), vocab_size // 4 * 3)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    pad, end, unknown = SPECIAL_TOKENS
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown
    )


def strange_words(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[list[str], int]:
    """The words of a text that the captions of `train_tokenizer` hardly had, and how many are not.

    Such a word is in pieces: with room for more tokens none of it was in the captions, else it was
    seldom there. Of a tokenizer of another kind, as published models have, nothing is known.
    """
    backend = tokenizer.backend_tokenizer
    if not getattr(backend.model, "fuse_unk", False):
        return [], 0
    words = dict.fromkeys(WORD.findall(backend.normalizer.normalize_str(text)))
    strange = [word for word in words if len(backend.encode(word, add_special_tokens=False)) > 1]
    return strange, len(words) - len(strange)


def _alphabet(texts: Iterable[str], most: int) -> list[str]:
    """The space sign, a-z, 0-9 and the commonest other characters of the texts, `most` in all."""
    always = "▁" + string.ascii_lowercase + string.digits
    counts = Counter(character for text in texts for character in text if not character.isspace())
    others = sorted((c for c in counts if c not in always), key=lambda c: (-counts[c], c))
    return [*always, *others][:most]
