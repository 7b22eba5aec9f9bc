"""The evaluation as a command, on a few seconds of sound and a tagger of random weights."""

import json
import re
import sys

import av
import numpy as np
import pytest
import soundfile
import torch

from bins.tta import evaluate as command
from models.tta.evaluation.clips import Clip, pair, read_references
from models.tta.evaluation.features import BACKBONES, Ear, Features, _kept
from models.tta.evaluation.hub_models import AST, CLAP
from models.tta.evaluation.mn04 import MN04
from models.tta.evaluation.protocol import PROTOCOLS, differences, find_protocol, protocol_record
from models.tta.evaluation.report import compare
from models.tta.evaluation.scores import Row, shuffled
from tests.sounds import make_config
from utils.errors import UserError

RATE = 16000
KINDS = ("dog", "rain")


def sound(seed, seconds=1.2, level=0.1):
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (level * (np.sin(2 * np.pi * (200 + 40 * seed) * time) + 0.3 * noise)).astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    """Six references of two kinds with captions, six generated with receipts, mn04's weights."""
    real, made, weights = (tmp_path / name for name in ("real", "made", "weights"))
    for folder in (real, made, weights):
        folder.mkdir()
    rows = ["file,caption,split,kind"]
    for number in range(6):
        kind = KINDS[number % 2]
        rows.append(f"r{number}.wav,a {kind} {number},test,{kind}")
        soundfile.write(real / f"r{number}.wav", sound(number), RATE)
        soundfile.write(made / f"{number:04d}.wav", sound(number, level=0.05), RATE)
        receipt = {"file": f"{number:04d}.wav", "text": f"a {kind} {number}"}
        (made / f"{number:04d}.json").write_text(json.dumps(receipt))
    rows.append("training.wav,another,train,dog")
    (real / "captions.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    torch.save(MN04().state_dict(), weights / BACKBONES["mn04"].file)
    return tmp_path


def run(monkeypatch, root, *more):
    places = {"generated": "made", "reference": "real", "weights_dir": "weights"}
    places |= {"cache_dir": "cache", "output_dir": "out"}
    options = [word for name, place in places.items() for word in (f"--{name}", str(root / place))]
    options += ["--device", "cpu", "--bootstrap", "5", *more]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *options])
    command.main()
    return json.loads((root / "out" / "evaluation.json").read_text())


def test_the_whole_way(folders, monkeypatch, capsys):
    made = folders / "made"
    soundfile.write(made / "copy.wav", sound(0, level=0.05), RATE)
    soundfile.write(made / "quiet.wav", sound(0) * 1e-4, RATE, "FLOAT")
    soundfile.write(made / "loud.wav", np.clip(sound(0) * 50, -1, 1), RATE)
    soundfile.write(made / "short.wav", sound(0, 0.3), RATE)
    (made / "text.wav").write_text("no sound")
    (made / "0005.wav").unlink()
    result = run(monkeypatch, folders, "--control", f"vocoder={folders / 'real'}")
    checks = result["checks"]
    assert checks["missing"] == ["r5"]
    assert checks["duplicate"] == ["0000 = copy"]
    assert (checks["silent"], checks["clipped"]) == (["quiet"], ["loud"])
    assert checks["too short"] == ["short"]
    assert [names for why, names in checks.items() if "not readable" in why] == [["text"]]
    assert checks["without a reference"] == ["copy", "loud", "quiet", "short"]
    assert checks["reference not there"] == ["training.wav"]
    assert result["protocol"]["generated"] == 9
    assert result["protocol"]["references"]["number"] == 6  # not the one of the train split
    rows = result["rows"]
    assert rows["vocoder"]["FD mn04"]["value"] == pytest.approx(0, abs=1e-6)
    assert rows["vocoder"]["KL mn04"]["value"] == pytest.approx(0, abs=1e-9)
    assert {"silence", "white noise", "shuffled captions", "reference, halves of 3"} <= rows.keys()
    assert rows["generated"]["FD mn04"]["error"] > 0
    printed = capsys.readouterr().out
    assert "Cnn14_16k_mAP=0.438.pth from https://zenodo.org/record/3987831" in printed
    assert "vggish" in result["not_run"]
    assert re.search(r"silent 1: quiet\n", printed)
    page = (folders / "out" / "index.html").read_text()
    assert page.count("<audio") >= 10
    assert '../made/0000.wav"' in page
    assert "KL mn04" in (folders / "out" / "evaluation.md").read_text()


def test_a_reference_is_read_as_preprocessing_reads_it(folders):
    """soundfile alone knows neither this container nor a length that is told as none."""
    path, samples = folders / "clip.m4a", (sound(0) * 32767).astype(np.int16)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    found, rate = Clip("clip", path).read()
    assert (rate, found.ndim) == (RATE, 2)
    loudest = np.abs(np.fft.rfft(found[:, 0])).argmax() * RATE / len(found)
    assert loudest == pytest.approx(200, abs=2)
    (folders / "empty.m4a").touch()
    with pytest.raises(UserError, match=r"^not readable: "):
        Clip("empty", folders / "empty.m4a").read()


def test_level_is_shown_by_kind(folders, monkeypatch):
    """The generated are half as loud as the references: 6.02 dB."""
    levels = run(monkeypatch, folders)["levels"]
    assert set(levels) == {"all", *KINDS}
    for level in levels.values():
        assert level["difference"] == pytest.approx(-6.02, abs=0.02)


def test_what_was_heard_is_kept_by_content(folders, monkeypatch):
    """Renamed sounds are not heard again, a changed one is; the figures do not depend on it."""
    first = run(monkeypatch, folders)
    heard = []
    forward = MN04.forward
    monkeypatch.setattr(MN04, "forward", lambda net, wav: (heard.append(1), forward(net, wav))[1])
    assert run(monkeypatch, folders) == first
    (folders / "made" / "0000.wav").rename(folders / "made" / "9000.wav")
    (folders / "made" / "0000.json").rename(folders / "made" / "9000.json")
    run(monkeypatch, folders)
    assert heard == []
    soundfile.write(folders / "made" / "0001.wav", sound(77), RATE)
    run(monkeypatch, folders)
    assert len(heard) == 1


def test_a_damaged_entry_is_computed_anew(tmp_path):
    path = tmp_path / "a" / "entry.npz"
    assert _kept(path, lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:40])
    assert _kept(path, lambda: {"x": np.arange(4)})["x"].tolist() == [0, 1, 2, 3]


def test_no_weights_at_hand(folders, monkeypatch):
    (folders / "weights" / BACKBONES["mn04"].file).unlink()
    with pytest.raises(UserError, match=r"mn04_as_mAP_432.pt from https://github.com/fschmid56"):
        run(monkeypatch, folders)
    with pytest.raises(UserError, match="no such file; it is"):
        run(monkeypatch, folders, "--weights", "mn04=nowhere.pt")
    with pytest.raises(UserError, match="must be one of mn04"):
        run(monkeypatch, folders, "--backbones", "mn05")


def test_compare_refuses_other_protocols(folders, monkeypatch):
    out = folders / "out" / "evaluation.json"
    run(monkeypatch, folders)
    one = out.rename(folders / "one.json")
    soundfile.write(folders / "made" / "0001.wav", sound(77), RATE)
    run(monkeypatch, folders)
    assert "FD mn04" in compare(one, out)
    run(monkeypatch, folders, "--seconds", "2")
    with pytest.raises(UserError, match=r"cut_seconds: None, 2.0\n"):
        compare(one, out)
    soundfile.write(folders / "real" / "r0.wav", sound(99), RATE)
    run(monkeypatch, folders)
    with pytest.raises(UserError, match=r"references.list: "):
        compare(one, out)


def test_the_protocol_knows_other_weights_and_numbers():
    def record(count, sha256):
        about = {"list": "0" * 64, "number": 9, "split": "test"}
        weights = {"mn04": {"file": "mn04.pt", "sha256": sha256}}
        return protocol_record(PROTOCOLS["arion"], about, count, weights)

    assert differences(record(8, "a"), record(8, "a")) == []
    copy = record(8, "a")
    copy["backbones"]["mn04"]["file"] = "a copy of it.pt"
    assert differences(record(8, "a"), copy) == []
    assert differences(record(8, "a"), record(7, "b")) == [
        "generated: 8, 7",
        "backbones.mn04.sha256: a, b",
    ]


def test_pairs_by_name_then_by_caption():
    references = [
        Clip("x", None, ("a dog", "barking")),
        Clip("y", None, ("a dog",)),
        Clip("0001", None, ("rain",)),
    ]
    generated = [
        Clip("x", None),  # by name
        Clip("0000", None, ("barking",)),  # by the second caption
        Clip("0001", None, ("a dog",)),  # the name is a coincidence
        Clip("0002", None, ("a dog",)),  # the second with it
        Clip("0003", None, ("a cat",)),
    ]
    assert pair(generated, references) == {0: 0, 1: 0, 2: 0, 3: 1}


def test_references_are_a_prepared_data_set_or_a_folder(folders):
    prepared = folders / "prepared" / "Sounds"
    prepared.mkdir(parents=True)
    records = [
        {"Dataset": "Sounds", "Uid": uid, "Caption": f"caption of {uid}", "kind": "dog"}
        for uid in ("r1", "r2", "gone")
    ]
    (prepared / "valid.json").write_text(json.dumps(records))
    config = make_config(prepared.parent, f"dataset_path.Sounds={folders / 'real'}")
    clips, split, missing = read_references("Sounds", config, None)
    assert ([clip.uid for clip in clips], split, missing) == (["r1", "r2"], "valid", ["gone"])
    assert (clips[0].path.name, clips[0].captions) == ("r1.wav", ("caption of r1",))
    (prepared / "train.json").write_text("[1]")  # which is only read where it is asked for
    assert read_references("Sounds", config, None)[0] == clips
    with pytest.raises(UserError, match=r"train.json: record 1: must be an object"):
        read_references("Sounds", config, "train")
    with pytest.raises(UserError, match="neither a folder nor a data set"):
        read_references("Other", config, None)
    with pytest.raises(UserError, match=r"has test$"):
        read_references(str(folders / "real"), config, "valid")
    plain, split, _ = read_references(str(folders / "made"), config, None)
    assert (len(plain), split, plain[0].captions) == (6, "all", ("a dog 0",))


def test_shuffled_gives_every_sound_what_belongs_to_another():
    features = Features([torch.zeros(1, 2)] * 5, torch.zeros(5, 3))
    texts = torch.arange(5.0)[:, None]
    row = shuffled(Row(features, [(i, i) for i in range(5)], texts=texts, texts_of=range(5)))
    assert sorted(j for _, j in row.pairs) == list(range(5))
    assert all(i != j for i, j in row.pairs)
    assert (row.texts != texts).all()


def test_presets_prepare_sounds_as_their_tools_do():
    samples = np.stack([np.full(16000, 0.5), np.linspace(0, 1, 16000)], 1).astype(np.float32)
    first = PROTOCOLS["audioldm_eval"].prepare(samples, 16000, 16000)
    assert first.shape == (32000,)
    np.testing.assert_allclose(first, 0, atol=1e-7)  # the first channel, its mean removed
    long = np.tile(samples, (10, 1))
    both = PROTOCOLS["av-benchmark"].prepare(long, 16000, 16000)
    assert both.shape == (128000,)
    mean = long.mean(1) - long.mean()
    np.testing.assert_allclose(both, mean[:128000], atol=1e-6)
    assert PROTOCOLS["av-benchmark"].prepare(samples, 48000, 16000).shape == (5334,)


def test_every_setting_of_hearing_changes_the_place_of_what_is_kept():
    hashes = {protocol.hearing for protocol in PROTOCOLS.values()}
    hashes |= {find_protocol("arion", 5, None).hearing, find_protocol("arion", 6, None).hearing}
    assert len(hashes) == 5


def test_the_hash_of_a_folder_of_weights_is_of_all_its_files(tmp_path):
    def hash_of(**files: bytes) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_bytes(content)
        return Ear(BACKBONES["ast"], folder, torch.device("cpu")).sha256

    alone = hash_of(model_safetensors=b"a")
    assert alone == hash_of(model_safetensors=b"a", pytorch_bin=b"b") == hash_of(pytorch_bin=b"a")
    shards = {hash_of(one_safetensors=b"a", two_safetensors=last)[:12] for last in (b"b", b"c")}
    assert len(shards) == 2


def test_ast_and_clap_are_read_from_their_folders(tmp_path):
    from transformers import (
        ASTConfig,
        ASTFeatureExtractor,
        ASTForAudioClassification,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        RobertaTokenizer,
    )

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ast = ASTConfig(**shape, intermediate_size=16, max_length=128, num_mel_bins=32, num_labels=5)
    ASTForAudioClassification(ast).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(num_mel_bins=32, max_length=128).save_pretrained(tmp_path / "ast")
    net = AST(tmp_path / "ast").eval()
    wav = torch.from_numpy(sound(1))[None]
    with torch.no_grad():
        embedding, logits = net(wav)
    assert (embedding.shape, logits.shape, len(net.labels)) == ((1, 16), (1, 5), 5)

    text = {**shape, "intermediate_size": 16, "vocab_size": 262, "projection_dim": 8}
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1]}
    audio |= {"num_attention_heads": [2, 2], "num_hidden_layers": 2, "projection_dim": 8}
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    ClapModel(config).save_pretrained(tmp_path / "clap")
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(tmp_path / "clap")
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = RobertaTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    tokenizer.save_pretrained(tmp_path / "clap")
    net = CLAP(tmp_path / "clap").eval()
    long = torch.from_numpy(np.tile(sound(1), 26))[None]  # 19200 samples, 26 times: 10.4 s
    with torch.no_grad():
        heard = [net(torch.cat([long, tail], 1))[0] for tail in (long, 2 * long)]
    assert heard[0].shape == (1, 8)
    assert torch.equal(*heard)  # the first ten seconds, not a random part
    assert float(heard[0].norm()) == pytest.approx(1)
    assert float(net.embed_text("rain").norm()) == pytest.approx(1)
    assert not torch.equal(net.embed_text("rain"), net.embed_text("dog"))
