from preprocessors.records import Records, by_split
from preprocessors.splits import Leak, compose, draw_valid, same_sounds
from processors.clips import Outcome


def record(uid, caption="x"):
    return {"Dataset": "Sounds", "Uid": uid, "Caption": caption}


def kept(*uids):
    return {uid: Outcome(uid, digest=f"sound of {uid}") for uid in uids}


def divide(records, outcomes, fraction):
    return compose(Records(by_split(records), origin={}), outcomes, 1, fraction)


def uids(splits):
    return {split: [record["Uid"] for record in records] for split, records in splits.items()}


def test_only_clips_with_a_mel_go_in():
    records = [("train", record("a")), ("train", record("b")), ("valid", record("c"))]
    splits, leaks = divide(records, kept("a", "c"), 0.5)
    assert uids(splits) == {"train": ["a"], "valid": ["c"], "test": []}
    assert not leaks


def test_held_out_by_clip_and_not_by_caption():
    names = [f"clip{i}" for i in range(200)]
    records = [("train", record(name, caption)) for name in names for caption in "xyz"]
    splits, _ = divide(records, kept(*names), 0.2)
    train, valid = uids(splits)["train"], uids(splits)["valid"]
    assert not set(train) & set(valid)
    assert len(train) + len(valid) == 600
    assert 20 * 3 <= len(valid) <= 60 * 3


def test_a_clip_stays_where_it_is_as_others_come():
    few, many = ({f"clip{i}" for i in range(count)} for count in (100, 200))
    assert draw_valid(few, 1, 0.1) == draw_valid(many, 1, 0.1) & few
    assert draw_valid(many, 1, 0.1) != draw_valid(many, 2, 0.1)


def test_at_least_one_clip_is_held_out_if_any_are_to_be():
    assert len(draw_valid({"a", "b"}, 1, 1e-9)) == 1
    assert draw_valid({"a", "b"}, 1, 0) == set()
    assert draw_valid({"a"}, 1, 0.5) == set()


def test_a_split_that_is_given_is_kept():
    records = [("train", record(f"t{i}")) for i in range(50)] + [("valid", record("v"))]
    splits, _ = divide(records, kept("v", *(f"t{i}" for i in range(50))), 0.5)
    assert uids(splits)["valid"] == ["v"]
    assert len(splits["train"]) == 50


def test_a_clip_in_two_splits_is_removed_from_train_and_reported():
    records = [
        *(("train", record(uid)) for uid in "abc"),
        *(("valid", record(uid)) for uid in "bd"),
        *(("test", record(uid)) for uid in "cd"),
    ]
    splits, leaks = divide(records, kept(*"abcd"), 0.5)
    assert uids(splits) == {"train": ["a"], "valid": ["b"], "test": ["c", "d"]}
    assert leaks == [
        Leak("d", "valid", "test", removed=True),
        Leak("b", "train", "valid", removed=True),
        Leak("c", "train", "test", removed=True),
    ]


def test_files_of_the_user_stay_as_they_are():
    """What has no mel, or stands in two of them, stays; nothing is drawn from them."""
    theirs = {
        "train": [record("a"), record("b"), record("no mel")],
        "valid": [],
        "test": [record("b")],
    }
    nothing = {split: [] for split in theirs}
    splits, leaks = compose(Records(nothing, {}, theirs=theirs), kept(*"ab"), 1, 0.5)
    assert splits == theirs
    assert leaks == [Leak("b", "train", "test", removed=False)]


def test_nothing_is_drawn_for_a_split_that_the_user_wrote():
    """The drawn clips would be in none."""
    records = by_split([("train", record(uid)) for uid in "abc"])
    theirs = {"valid": [record("v")]}
    splits, _ = compose(Records(records, {}, theirs=theirs), kept(*"abcv"), 1, 0.5)
    assert uids(splits) == {"train": ["a", "b", "c"], "valid": ["v"], "test": []}


def test_the_same_sound_under_another_name():
    outcomes = {uid: Outcome(uid, digest=uid[0]) for uid in ("a1", "a2", "a3", "b1")}
    splits = {
        "train": [record("a1"), record("a2"), record("b1")],
        "valid": [record("a3"), record("a3")],
        "test": [],
    }
    assert same_sounds(splits, outcomes) == [
        Leak("a1", "train", "valid", removed=False),
        Leak("a2", "train", "valid", removed=False),
    ]


def test_the_same_sound_twice_in_one_split():
    outcomes = {uid: Outcome(uid, digest=uid[0]) for uid in ("a1", "a2", "b1")}
    twice = [record("a1", "A dog"), record("a1", "Barking"), record("a2", "Rain"), record("b1")]
    splits = {"train": twice, "valid": [], "test": []}
    assert same_sounds(splits, outcomes) == [Leak("a2", "train", "train", removed=False)]


def test_what_is_made_gives_way_to_what_the_user_wrote():
    """A clip of the user's train.json is not drawn for validation; nothing else changes."""
    made = {"train": [record(uid) for uid in "abcd"], "valid": [], "test": []}
    alone, _ = compose(Records(made, {}), kept(*"abcd"), 1, 0.5)
    mine = [alone["valid"][0], *alone["train"][1:]]
    splits, leaks = compose(Records(made, {}, theirs={"train": mine}), kept(*"abcd"), 1, 0.5)
    assert splits == {"train": mine, "valid": alone["valid"][1:], "test": []}
    assert leaks == [Leak(mine[0]["Uid"], "valid", "train", removed=True)]
