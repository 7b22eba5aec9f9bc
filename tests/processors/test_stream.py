import itertools
from collections import Counter

import pytest

from processors.stream import ClipStream, Share


def test_an_epoch_holds_every_clip_once_and_the_next_is_shuffled_anew():
    stream = ClipStream(50, seed=1)
    epochs = [[stream.clip(50 * epoch + place) for place in range(50)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))


def test_a_position_has_the_same_clip_whoever_asks_and_in_whatever_order():
    forward, backward = ClipStream(7, seed=3), ClipStream(7, seed=3)
    positions = range(40)
    ahead = [forward.clip(position) for position in positions]
    assert [backward.clip(position) for position in reversed(positions)] == ahead[::-1]
    assert [ClipStream(7, seed=4).clip(position) for position in positions] != ahead


def test_random_numbers_belong_to_seed_and_position():
    def draw(seed, position):
        return ClipStream(7, seed).random(position).integers(2**60)

    assert draw(3, 5) == draw(3, 5)
    assert len({draw(seed, position) for seed in (3, 4) for position in range(50)}) == 100


@pytest.mark.parametrize(("micro_batches", "world_size"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_micro_batches_of_all_processes_make_up_the_batch_in_order(micro_batches, world_size):
    batch = 12
    shares = [Share(batch, micro_batches, rank, world_size) for rank in range(world_size)]
    for step in (0, 5):
        pieces = [s.positions(step, micro) for micro in range(micro_batches) for s in shares]
        assert list(itertools.chain(*pieces)) == list(range(step * batch, (step + 1) * batch))
    slices = [share.slice(micro) for micro in range(micro_batches) for share in shares]
    assert [range(batch)[piece] for piece in slices] == [
        range(first, first + batch // (micro_batches * world_size))
        for first in range(0, batch, batch // (micro_batches * world_size))
    ]


def test_from_a_step_on_the_micro_batches_are_those_of_an_uninterrupted_run():
    share = Share(12, micro_batches=2, rank=1, world_size=2)
    whole = list(itertools.islice(share.from_step(0), 20))
    assert list(itertools.islice(share.from_step(3), 14)) == whole[6:]


def test_clips_of_a_step_are_those_of_all_processes():
    stream = ClipStream(10, seed=2)
    shares = [Share(4, 1, rank, 2) for rank in range(2)]
    seen = [stream.clip(p) for share in shares for p in share.positions(7, 0)]
    assert shares[0].clips(7, stream) == shares[1].clips(7, stream) == seen


def test_more_positions_than_clips_in_a_batch():
    stream = ClipStream(3, seed=0)
    assert Counter(Share(12).clips(0, stream)) == {0: 4, 1: 4, 2: 4}
