import csv
import hashlib
import wave

import numpy as np
import pytest

from preprocessors.demo import CLIP_SECONDS, demo_clips, demo_prompts, make_demo
from preprocessors.demo_kinds import KINDS, sentence
from preprocessors.demo_sounds import Draw, Traits, decay, render, since_beat, sine, smooth

SEED = 12345
SAMPLE_RATE = 16000
# Every quickstart starts from these very bytes, so that its figures compare between machines. Where
# a change of sounds or captions is meant: listen, look at the mels, then pin the new one.
EVERY = 4  # of the sounds, which take the time, twenty of each kind
SHA256_OF_CAPTIONS_AND_SOUNDS = "202a4ca5ae43b53da45a2a0efbe2fd9699d1c371a2b5b3c143d4c3188e161d55"


@pytest.fixture(scope="module")
def rows():
    return [
        {"file": clip.file, "caption": clip.caption, "split": clip.split, "Kind": clip.kind}
        for clip in demo_clips(SEED)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Demo")
    make_demo(folder, demo_clips(SEED)[::EVERY], SAMPLE_RATE, SEED)
    return folder


def test_same_bytes_on_every_machine(folder, rows):
    digest = hashlib.sha256("".join(f"{row}" for row in rows).encode())
    for path in sorted(folder.rglob("*.*")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    assert digest.hexdigest() == SHA256_OF_CAPTIONS_AND_SOUNDS


def test_captions_csv_lists_every_file_once(folder, rows):
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows[::EVERY]
    assert len({row["file"] for row in rows}) == len(rows) == 880
    files = [path.name for path in (folder / "wav").iterdir()]
    assert sorted(files) == sorted(row["file"] for row in rows[::EVERY])


def test_every_clip_is_160_frames_of_16_bit_mono_and_unclipped(folder, rows):
    for row in rows[:: 2 * EVERY]:
        with wave.open(str(folder / "wav" / row["file"])) as file:
            assert file.getparams()[:4] == (1, 2, SAMPLE_RATE, 160 * 256)
            wav = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert 0.06 * 32767 < np.abs(wav.astype(int)).max() < 0.91 * 32767


def test_share_of_kinds_and_splits(rows):
    single = [row for row in rows if " + " not in row["Kind"]]
    two = [row for row in rows if " + " in row["Kind"]]
    assert {row["Kind"] for row in single} == {kind.name for kind in KINDS}
    assert len(KINDS) >= 10
    for kind in KINDS:
        splits = [row["split"] for row in single if row["Kind"] == kind.name]
        assert (splits.count("train"), splits.count("valid")) == (72, 8)
    assert 0.05 < len(two) / len(rows) < 0.15
    assert all(", then " in row["caption"] for row in two)
    assert not any(", then " in row["caption"] for row in single)


def test_captions_vary_and_read_well(rows):
    for kind in KINDS:
        captions = {row["caption"] for row in rows if row["Kind"] == kind.name}
        assert len(captions) >= 15
    for row in rows:
        caption = row["caption"]
        assert caption == caption.strip()
        assert caption[0].isupper()
        assert "  " not in caption
        assert "{" not in caption


def test_another_seed_gives_other_sounds_and_captions():
    ours, theirs = demo_clips(SEED), demo_clips(SEED + 1)
    assert [c.caption for c in ours] != [c.caption for c in theirs]
    assert not np.array_equal(ours[0].wav(SAMPLE_RATE, SEED), theirs[0].wav(SAMPLE_RATE, SEED + 1))


def test_a_clip_lasts_as_long_at_another_rate():
    clip = demo_clips(SEED)[3]
    assert len(clip.wav(8000, SEED)) == round(CLIP_SECONDS * 8000)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_caption_names_no_trait_that_the_sound_lacks(kind):
    traits = Traits(level="quiet", pitch="high", tempo="slow", count=2)
    untrue = {"loud", "heavy", "low", "deep", "fast", "quickly", "rapidly", "once", "three"}
    if kind.name == "fast clicking":
        untrue -= {"fast", "quickly", "rapidly"}
    for seed in range(100):
        words = set(kind.caption(traits, Draw(seed)).lower().split())
        assert not words & untrue


def events(name, **traits):
    kind = next(kind for kind in KINDS if kind.name == name)
    given = Traits(**{"level": "loud", "pitch": "low", "tempo": "slow", "count": 1} | traits)
    return [render(kind.sound, given, Draw(seed), 40960, SAMPLE_RATE) for seed in range(8)]


def centroid(wav):
    """Mean frequency by power, in Hz."""
    power = np.abs(np.fft.rfft(wav)) ** 2
    return float((power * np.fft.rfftfreq(len(wav), 1 / SAMPLE_RATE)).sum() / power.sum())


def onsets(wav):
    """How often the loudness in steps of 16 ms comes up from below an eighth of the largest."""
    level = np.abs(wav).reshape(-1, 256).max(axis=1) > np.abs(wav).max() / 8
    return int(level[0]) + int((np.diff(level.astype(int)) == 1).sum())


def swings(wav):
    """How often the pitch comes up through its mean."""
    pitch = np.array([centroid(part) for part in wav.reshape(-1, 1024)])
    return int((np.diff((pitch > pitch.mean()).astype(int)) == 1).sum())


def fires_fast(wav):
    """Autocorrelation at its best between 74 and 101 Hz."""
    power = np.abs(np.fft.rfft(wav, 2 * len(wav))) ** 2
    correlation = np.fft.irfft(power)
    return (correlation[SAMPLE_RATE // 101 : SAMPLE_RATE // 74] / correlation[0]).max()


def strikes(wav):
    """How often the loudness in steps of 32 ms jumps up by a third."""
    level = np.abs(wav).reshape(-1, 512).max(axis=1)
    jumps = level[2:] > 1.33 * level[:-2]
    return int(jumps[0]) + int((np.diff(jumps.astype(int)) == 1).sum())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_loud_is_loud_and_quiet_is_quiet(kind):
    loud = min(np.abs(wav).max() for wav in events(kind.name, level="loud"))
    quiet = max(np.abs(wav).max() for wav in events(kind.name, level="quiet"))
    assert loud > 5 * quiet


@pytest.mark.parametrize("kind", [k for k in KINDS if k.pitch], ids=lambda kind: kind.name)
def test_high_is_higher_than_low(kind):
    high = min(map(centroid, events(kind.name, pitch="high")))
    low = max(map(centroid, events(kind.name, pitch="low")))
    assert high > 1.2 * low


def test_tones_rise_and_fall():
    def start_and_end(wav):
        heard = np.flatnonzero(np.abs(wav) > 0.05 * np.abs(wav).max())
        sound = wav[heard[0] : heard[-1]]
        third = len(sound) // 3
        return centroid(sound[:third]), centroid(sound[-third:])

    for rising, falling in zip(events("rising tone"), events("falling tone"), strict=True):
        start, end = start_and_end(rising)
        assert end > 1.8 * start
        start, end = start_and_end(falling)
        assert start > 1.8 * end


def test_slow_and_fast_are_what_they_say():
    assert max(map(onsets, events("slow clicking"))) <= 7
    assert min(map(onsets, events("fast clicking"))) >= 12
    assert max(map(onsets, events("bird", tempo="slow"))) <= 8
    assert min(map(onsets, events("bird", tempo="fast"))) >= 14
    assert max(map(swings, events("siren", tempo="slow"))) <= 4
    assert min(map(swings, events("siren", tempo="fast"))) >= 6
    assert max(map(fires_fast, events("engine", tempo="slow"))) < 0.15
    assert min(map(fires_fast, events("engine", tempo="fast"))) > 0.25


def test_a_bell_is_struck_as_often_as_it_says():
    for count in (1, 2, 3):
        assert {strikes(wav) for wav in events("bell", count=count)} == {count}


def test_building_blocks():
    turns = np.array([-0.25, 0, 0.25, 0.5, 0.75, 1 / 12])
    np.testing.assert_allclose(sine(turns), [-1, 0, 1, 0, -1, 0.5], atol=1e-15)
    np.testing.assert_array_equal(smooth(np.array([4.0, 0, 0, 8, 0]), 2), [2, 2, 0, 4, 4])
    time = np.array([-1.0, 0, 0.5, 1])
    np.testing.assert_allclose(decay(time, 0.5), [0, 1, np.exp(-1), np.exp(-2)])
    since = since_beat(Draw(1), np.arange(1000) / 1000, rate=5, jitter=0)
    assert since.max() <= 0.2 + 1e-9
    assert (np.diff(since) < 0).sum() == 4


def test_sentences():
    assert sentence("a  loud engine, then a  bell") == "A loud engine, then a bell"
    assert sentence("the hum of a  engine") == "The hum of an engine"


def test_prompts_are_ten_for_each_kind_and_a_third_is_worded_anew(rows):
    prompts = demo_prompts(demo_clips(SEED))
    assert [p["Kind"] for p in prompts] == [kind.name for kind in KINDS for _ in range(10)]
    assert len({p["prompt"] for p in prompts}) == 100
    captions = {row["caption"].lower() for row in rows if row["split"] == "train"}
    unseen = [p["prompt"] for p in prompts if p["prompt"].lower() not in captions]
    assert len(unseen) == 30
    assert {prompt for kind in KINDS for prompt in kind.new_wordings} == set(unseen)


def test_new_wordings_are_no_caption_of_any_seed():
    captions = {clip.caption.lower() for seed in range(20) for clip in demo_clips(seed)}
    assert not {w.lower() for kind in KINDS for w in kind.new_wordings} & captions
