import numpy as np

from models.tta.evaluation import demo
from tests.sounds import make_config, noise

PROMPTS = [{"prompt": f"sound {number}", "Kind": "bell"} for number in range(4)]


class Listener:
    """Takes everything loud for a bell."""

    def hear(self, mels):
        return ["bell" if mel.max() > -2 else "silence" for mel in mels]


def test_samplers_are_compared_by_what_is_recognised(tmp_path, monkeypatch):
    def sounds(pipeline, vocoder, prompts, sampler, steps):
        """With more steps, more of the sounds are loud; with the second sampler, one more."""
        loud = steps + (sampler == "second")
        return [noise(0.5) * (number < loud) for number in range(len(prompts))]

    monkeypatch.setattr(demo, "train_listener", lambda config: Listener())
    monkeypatch.setattr(demo, "sounds", sounds)
    config = make_config(tmp_path)
    rows = demo.compare_samplers(config, None, None, PROMPTS, ["first", "second"], [0, 2])
    assert [[row[0], *row[2:]] for row in rows] == [[0, 0, 1], [2, 2, 3]]


def test_sounds_are_made_in_batches_with_the_prompts_numbers_as_seeds():
    calls = []

    def pipeline(texts, seeds, num_steps, sampler):
        calls.append((len(texts), list(seeds), num_steps, sampler))
        return np.zeros((len(texts), 8))

    class Wavs(list):
        def numpy(self):
            return self

    made = demo.sounds(pipeline, Wavs, PROMPTS * 7, "ddim", 3)
    assert len(list(made)) == 28
    assert calls == [(25, list(range(25)), 3, "ddim"), (3, [25, 26, 27], 3, "ddim")]
