"""New words for a small text encoder whose tokenizer was made from other texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import AddedToken

from models.tta.ldm.text_encoder import TextEncoder

WORD = re.compile(r"[^\W\d_]+|[^\w\s]")  # or a sign


def learn_words(encoder: TextEncoder, texts: Iterable[str], most: int) -> list[str]:
    """Gives the words and signs of `texts` that fall apart into pieces a token of their own each.

    A word begins as the mean of its pieces. Texts without such words are encoded as before, so that
    a network which knows the encoder's states still does.

    Args:
        encoder: changed in place.
        texts: such as instructions, where the tokenizer was made from captions.
        most: tokens in all, as `train_tokenizer`'s vocab_size; the commonest words come first.

    Returns:
        The new words.
    """
    tokenizer, embedding = encoder.tokenizer, encoder.model.get_input_embeddings().weight
    lower = tokenizer.backend_tokenizer.normalizer.normalize_str
    counts = Counter(word for text in set(texts) for word in WORD.findall(lower(text)))
    pieces = {word: encoder.pieces(word) for word in sorted(counts)}
    split = [word for word in pieces if len(pieces[word]) > 1]
    room = max(0, most - len(tokenizer))
    words = sorted(split, key=lambda word: -counts[word])[:room]
    if not words:
        return []
    means = torch.stack([embedding[pieces[word]].detach().mean(0) for word in words])
    tokenizer.add_tokens([AddedToken(w, single_word=w.isalpha(), lstrip=True) for w in words])
    encoder.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight[-len(words) :] = means
    return words
