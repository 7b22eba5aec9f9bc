import json
import shutil

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5TokenizerFast,
)

from config.model_schema import SmallT5Config
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.tokenizer import train_tokenizer
from utils.errors import UserError

CAPTIONS = [
    "A dog barks twice, then a siren rises",
    "Rain falls and thunder rumbles",
    "A bell rings slowly",
    "Birds sing; a man whistles",
]
SMALL = SmallT5Config(vocab_size=300, d_model=32, num_layers=2, num_heads=4, d_ff=64)


def small_encoder(max_tokens: int = 32, seed: int = 0) -> TextEncoder:
    torch.manual_seed(seed)
    return TextEncoder.small(SMALL, CAPTIONS, max_tokens)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    """A whole T5, decoder and all, with a tokenizer of T5's own kind, as hubs hold them."""
    folder = tmp_path_factory.mktemp("t5 of mine")
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁dog", "▁bark", "s", *"abcdefghijklmnopqrt"]
    tokenizer = T5TokenizerFast(vocab=[(p, -float(i)) for i, p in enumerate(pieces)], extra_ids=4)
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(tokenizer) + 3, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=2
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_a_t5_from_a_folder_gives_what_transformers_gives(t5_folder):
    encoder = TextEncoder.from_pretrained(str(t5_folder), max_tokens=16)
    assert encoder.dim == 16
    assert not encoder.training, "T5's dropout must not act on a frozen encoder"
    texts = ["a dog barks", "a", ""]
    text_emb, text_mask = encoder.encode(texts)

    model = T5EncoderModel.from_pretrained(t5_folder)
    batch = T5TokenizerFast.from_pretrained(t5_folder)(texts, padding=True, return_tensors="pt")
    token_ids, same_mask = encoder.tokenize(texts)
    assert torch.equal(text_mask, same_mask)
    assert not text_mask[:, batch.input_ids.shape[1] :].any()
    token_ids, text_mask, text_emb = (
        part[:, : batch.input_ids.shape[1]] for part in (token_ids, text_mask, text_emb)
    )
    assert token_ids.tolist() == batch.input_ids.tolist()
    assert text_mask.tolist() == batch.attention_mask.bool().tolist()
    expected = model(**batch).last_hidden_state
    torch.testing.assert_close(text_emb[text_mask], expected[text_mask])


@torch.no_grad()
def test_pads_change_nothing():
    encoder = small_encoder()
    together, mask = encoder.encode(["a dog", "rain falls and thunder rumbles", ""])
    for row, text in enumerate(["a dog", "rain falls and thunder rumbles", ""]):
        token_ids, kept = encoder.tokenize([text])
        bare = token_ids[kept][None]
        alone = encoder(bare, torch.ones_like(bare))
        torch.testing.assert_close(together[row, mask[row]], alone[0], rtol=1e-4, atol=1e-5)


def test_the_empty_text_is_one_end_token():
    token_ids, text_mask = small_encoder().tokenize([""])
    assert token_ids[text_mask].tolist() == [1]
    assert text_mask[0, 0]


def test_long_texts_are_cut_and_end_with_the_end_token():
    encoder = small_encoder(max_tokens=6)
    token_ids, text_mask = encoder.tokenize(["a dog barks twice, then a siren rises", "a dog"])
    assert text_mask.sum(1).tolist() == [6, 3]
    assert token_ids[0, 5] == token_ids[1, 2] == 1
    assert encoder.is_cut("a dog barks twice, then a siren rises")
    assert not encoder.is_cut("a dog barks twice,")  # 5 tokens and the end
    assert encoder.is_cut("a dog barks twice, then")


def test_the_same_captions_give_the_same_tokenizer_in_any_order():
    def description(captions: list[str]) -> str:
        return train_tokenizer(iter(captions), 300).backend_tokenizer.to_str()

    captions = [f"{caption} {number}" for caption in CAPTIONS for number in range(20)]
    assert description(captions) == description(captions[::-1]) == description(captions)
    assert description(captions) != description(captions[:-1])


def test_captions_words_are_tokens_and_case_does_not_matter():
    tokenizer = train_tokenizer(CAPTIONS * 3, 300)
    assert tokenizer.tokenize("a DOG barks, Birds") == ["▁a", "▁dog", "▁barks", "▁,", "▁birds"]


def test_unknown_words_survive():
    tokenizer = train_tokenizer(CAPTIONS, 300)
    ids = tokenizer("a quixotic zebra 42").input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a quixotic zebra 42"
    strange = tokenizer("a 犬 barks 😀").input_ids
    assert strange.count(tokenizer.unk_token_id) == 2


@pytest.mark.parametrize("size", [64, 100, 1000])
@pytest.mark.parametrize("captions", [[], [""], CAPTIONS, ["Ünïcödé 犬が吠える 😀 \u0000 \n"]])
def test_the_vocabulary_stays_within_its_size(size, captions):
    tokenizer = train_tokenizer(captions, size)
    assert len(tokenizer) <= size
    assert max(tokenizer("any text at all 犬").input_ids) < size
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(tmp_path):
    encoder = small_encoder()
    encoder.save(tmp_path / "text_encoder")
    again = TextEncoder.from_pretrained(str(tmp_path / "text_encoder"), max_tokens=32)
    texts = [*CAPTIONS, "", "a zebra 犬"]
    for result, expected in zip(again.encode(texts), encoder.encode(texts), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert again.fingerprint() == encoder.fingerprint()


def test_the_fingerprint_changes_with_weights_and_tokenizer_only():
    encoder = small_encoder()
    first = encoder.fingerprint()
    assert len(first) == 12
    assert small_encoder().fingerprint() == first
    encoder.encode(["a dog"])
    encoder.tokenizer(["a dog"], padding="longest", truncation=True, max_length=2)
    assert encoder.fingerprint() == first, "use must not change it"
    encoder.tokenizer.add_tokens(["zebra"])
    assert encoder.fingerprint() != first
    other = small_encoder()
    with torch.no_grad():
        other.model.encoder.block[1].layer[0].SelfAttention.q.weight[0, 0] += 1e-6
    assert other.fingerprint() != first


def test_a_small_one_learns_and_training_mode_adds_no_noise():
    encoder = small_encoder().train()
    token_ids, text_mask = encoder.tokenize(CAPTIONS)
    text_emb = encoder(token_ids, text_mask)
    torch.testing.assert_close(text_emb, encoder(token_ids, text_mask), rtol=0, atol=0)
    text_emb[text_mask].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_autocast_does_not_reach_it():
    encoder = small_encoder()
    expected, _ = encoder.encode(CAPTIONS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        text_emb, _ = encoder.encode(CAPTIONS)
    torch.testing.assert_close(text_emb, expected, rtol=0, atol=0)


# ---------------------------------------------------------------- what cannot be loaded


def test_a_name_that_is_nowhere_names_the_alternative(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("no-such/t5-anywhere", "/no/such/folder"):
        with pytest.raises(UserError, match=r"(?s)not a folder.*pretrained=/path/to/t5"):
            TextEncoder.from_pretrained(name, 16)


def broken_copy(t5_folder, tmp_path):
    return shutil.copytree(t5_folder, tmp_path / "broken")


def test_pickled_weights_are_not_read(t5_folder, tmp_path):
    folder = broken_copy(t5_folder, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(T5EncoderModel.from_pretrained(t5_folder).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        TextEncoder.from_pretrained(str(folder), 16)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[1]"),
        ("config.json", b'{"model_type": "t5", "d_model": "wide"}'),
        ("config.json", b'{"model_type": "t5", "d_model": 24}'),
        ("model.safetensors", b"not tensors"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_damaged_folder_is_named(t5_folder, tmp_path, name, content):
    folder = broken_copy(t5_folder, tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="broken"):
        TextEncoder.from_pretrained(str(folder), 16)


def test_another_kind_of_model_is_refused(tmp_path):
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a 'bert'; it must be a 't5'"):
        TextEncoder.from_pretrained(str(tmp_path), 16)


def test_weights_of_another_model_are_refused(t5_folder, tmp_path):
    folder = broken_copy(t5_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
    with pytest.raises(UserError, match=r"lack encoder\.block\.2"):
        TextEncoder.from_pretrained(str(folder), 16)


def test_a_tokenizer_of_another_model_is_refused(t5_folder, tmp_path):
    folder = broken_copy(t5_folder, tmp_path)
    train_tokenizer(CAPTIONS, 300).save_pretrained(folder)
    with pytest.raises(UserError, match="do not belong together"):
        TextEncoder.from_pretrained(str(folder), 16)


def test_code_that_comes_with_a_folder_is_not_run(t5_folder, tmp_path):
    folder = broken_copy(t5_folder, tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoTokenizer": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    TextEncoder.from_pretrained(str(folder), 16)
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        TextEncoder.from_pretrained(str(folder), 16)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- words that are not known


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    """transformers makes one of 104 tokens, none of them a word, and says nothing."""
    from transformers import T5Config, T5EncoderModel

    T5EncoderModel(
        T5Config(vocab_size=200, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"knows no words: tokenizer\.json is missing there"):
        TextEncoder.from_pretrained(str(tmp_path), 12)


def test_loading_and_saving_again_changes_no_file(tmp_path):
    small = SmallT5Config(vocab_size=80, d_model=16, num_layers=1, num_heads=2, d_ff=16)
    TextEncoder.small(small, ["a dog barks"], 12).save(tmp_path / "once")
    TextEncoder.from_pretrained(str(tmp_path / "once"), 12).save(tmp_path / "again")
    for file in (tmp_path / "once").glob("*.json"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_captions_that_are_cut_or_not_known_are_told():
    small = SmallT5Config(vocab_size=80, d_model=16, num_layers=1, num_heads=2, d_ff=16)
    encoder = TextEncoder.small(small, ["a dog barks", "rain"], 12)
    assert encoder.check_captions(["a dog barks", "rain", "rain"]) == []
    long = "a dog barks and it rains on the roof of the house"
    (warning,) = encoder.check_captions(["a dog", long, long, "rain"])
    assert warning.startswith("1 of 3 captions are cut to 12 tokens")
    assert long[:20] in warning
    encoder.max_tokens = 64
    (warning,) = encoder.check_captions(["a dog barks", "rain", "a dog barks as the ☔"])
    assert "does not know" in warning
    (of_captions, of_prompts) = encoder.check_captions(["a whistle", "rain"], ["rain", "a tram"])
    assert of_captions.startswith("1 of 2 captions are mostly words that the text encoder does not")
    assert of_captions.endswith("few or none of them (whistle)")
    assert of_prompts.startswith("inference.demo_prompts: mostly words")
    assert of_prompts.endswith("(tram): 'a tram'")
    with pytest.raises(UserError, match=r"does not know .* of the captions' words, such as '犬"):
        encoder.check_captions(["犬が吠える", "雨が降る"])


def test_faults_of_prompts(t5_folder, tmp_path):
    small = SmallT5Config(vocab_size=80, d_model=16, num_layers=1, num_heads=2, d_ff=16)
    TextEncoder.small(small, ["a dog barks", "rain"], 12).save(tmp_path)
    encoder = TextEncoder.from_pretrained(str(tmp_path), 12)
    assert encoder.faults_of(["a dog", "Rain, rain"]) == []
    (line,) = encoder.faults_of(["a dog " * 20, "rain", "a dog"])
    assert line.startswith("cut to 12 tokens: 'a dog a dog")
    (line,) = encoder.faults_of(["a dog", "雨", "猫"])
    unknown = "mostly words that the text encoder does not know"
    reason = ", as the captions that it was trained on have few or none of them"
    assert line == f"{unknown}{reason} (雨, 猫): '雨' and 1 more"
    encoder.max_tokens = 64
    german = ["Ein Hund bellt", "a dog barks at rain", "Regen fällt, rain"]
    assert encoder.faults_of(german) == [
        f"{unknown}{reason} (ein, hund, bellt, regen, fällt): 'Ein Hund bellt' and 1 more"
    ]
    assert encoder.faults_of(["☔!"]) == [f"{unknown}: '☔!'"]
    published = TextEncoder.from_pretrained(str(t5_folder), 64)
    assert published.faults_of(["a bark a dog on a coat"]) == []
    assert published.faults_of(["雨"]) == [f"{unknown}: '雨'"]
