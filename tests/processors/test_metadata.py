import contextlib
import json
import logging
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.metadata import (
    fault_of_uid,
    load_split,
    mel_path,
    metadata_text,
    read_records,
    split_path,
)
from tests.sounds import make_config
from utils.errors import UserError
from utils.files import write_text

read_metadata = partial(read_records, dataset="Sounds")
GOOD = {"Dataset": "Sounds", "Uid": "dogs/bark 1", "Caption": "A dog barks"}


def write(tmp_path, content) -> None:
    (tmp_path / "Sounds").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "Sounds" / "train.json").write_text(text)


def put_mel(config, record) -> None:
    path = mel_path(config, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.zeros((80, 3), np.float32))


def test_records_come_back_with_all_their_keys(tmp_path):
    records = [GOOD, {**GOOD, "Uid": "-é \"'\n🐕", "Kind": "dog", "Loud": 3.5}]
    write_text(tmp_path / "train.json", metadata_text(records))
    assert read_records(tmp_path / "train.json", "Sounds") == records
    assert metadata_text([]) == "[]\n"


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "train.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode())
    assert read_records(tmp_path / "train.json", "Sounds") == [GOOD]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("[{]", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "must hold a list, not dict"),
        ("[1]", "record 1: must be an object"),
        ([GOOD, {"Uid": "a", "Caption": "b"}], "record 2: Dataset is missing"),
        ([{**GOOD, "Uid": 7}], "record 1: Uid must be text, not 7"),
        ([{**GOOD, "Caption": 7}], "record 1: Caption must be text, not 7"),
        ([{**GOOD, "Caption": " \n"}], "record 1: Caption must not be empty"),
        ([{**GOOD, "Caption": "long " * 3000}], "record 1: Caption has 15000 characters"),
        ([{**GOOD, "Caption": "\ud800"}], "lone surrogate"),
        ([{**GOOD, "Uid": "../../x"}], r"Uid '../../x' must not hold \"..\""),
        ([{**GOOD, "Uid": "/etc/passwd"}], "must be a relative path"),
    ],
)
def test_faults_name_file_record_and_rule(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        read_records(tmp_path / "Sounds" / "train.json", "Sounds")
    assert "train.json" in str(caught.value)


def test_not_utf8_and_a_folder(tmp_path):
    (tmp_path / "train.json").write_bytes(b'[{"Caption": "caf\xe9"}]')
    with pytest.raises(UserError, match="UTF-8"):
        read_records(tmp_path / "train.json", "Sounds")
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path, "Sounds")


@pytest.mark.parametrize("uid", ["a", "-a", "a b", "...", "..a", "a/b.c", "'", '"', "\n", "é🐕"])
def test_uids_that_are_fine(uid):
    assert fault_of_uid(uid) is None


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "/a",
        "a//b",
        "caf\udce9",
        "a/",
        ".",
        "..",
        "a/../b",
        "a/.",
        "a\0b",
        "x" * 251,
        "é" * 126,
        "ab/" * 400,
    ],
)
def test_uids_that_are_not(uid):
    assert fault_of_uid(uid)


@settings(deadline=None)  # a busy machine is no fault
@given(st.text())
def test_a_uid_without_fault_stays_in_its_folder(tmp_path_factory, uid):
    if fault_of_uid(uid) is None:
        folder = tmp_path_factory.getbasetemp() / "mel"
        assert (folder / f"{uid}.npy").resolve().is_relative_to(folder.resolve())


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner),
    max_leaves=12,
)


@settings(deadline=None)  # a busy machine is no fault
@given(st.binary() | st.text().map(str.encode) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_content_is_read_or_a_user_error_and_no_other(tmp_path_factory, content):
    """A search for crashes: an exception that is no UserError fails it; no outcome is asserted."""
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert all(fault_of_uid(record["Uid"]) is None for record in read_records(path, "Sounds"))


names = st.just("Sounds") | st.text()
texts = st.text() | st.sampled_from(["a", "a/b", "../x", "/x", "Rain", " ", "\ud800"])


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.lists(
        st.fixed_dictionaries(
            {"Dataset": names, "Uid": texts, "Caption": texts}, optional={"Kind": json_values}
        )
    )
)
def test_records_come_back_as_they_are_unless_one_breaks_a_rule(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(records))
    fine = all(
        fault_of_uid(record["Uid"]) is None
        and record["Dataset"] == "Sounds"
        and record["Caption"].strip()
        and not any("\ud800" <= c <= "\udfff" for name in GOOD for c in record[name])
        for record in records
    )
    if fine:
        assert read_records(path, "Sounds") == records
    else:
        with pytest.raises(UserError, match=r"record [0-9]+: (Dataset|Uid|Caption) "):
            read_records(path, "Sounds")


def test_load_split_leaves_out_what_has_no_mel(tmp_path, caplog):
    config = make_config(tmp_path)
    records = [{**GOOD, "Uid": uid} for uid in ("there", "deep/er", "absent")]
    write(tmp_path, records)
    for record in records[:2]:
        put_mel(config, record)
    with caplog.at_level(logging.WARNING):
        assert load_split(config, "train") == records[:2]
    assert "train: 1 records left out" in caplog.text


def test_load_split_joins_data_sets(tmp_path):
    config = make_config(tmp_path, "dataset=Sounds,More")
    for name in config.dataset:
        record = {**GOOD, "Dataset": name}
        put_mel(config, record)
        write_text(split_path(config, name, "train"), metadata_text([record]))
    assert [record["Dataset"] for record in load_split(config, "train")] == ["Sounds", "More"]


def test_load_split_says_what_to_run(tmp_path):
    config = make_config(tmp_path)
    with pytest.raises(UserError, match=r"train.json: no such file.*run_preprocess.sh"):
        load_split(config, "train")
    write(tmp_path, [GOOD])
    with pytest.raises(UserError, match=r"no clip of Sounds has a mel.*run_preprocess.sh"):
        load_split(config, "train")
    write_text(split_path(config, "Sounds", "valid"), "[]")
    assert load_split(config, "valid") == []


def test_records_of_another_data_set_are_refused(tmp_path):
    config = make_config(tmp_path)
    write(tmp_path, [{**GOOD, "Dataset": "Other"}])
    with pytest.raises(UserError, match="record 1: Dataset 'Other' must be 'Sounds'"):
        load_split(config, "train")


def test_triplets_of_a_data_set_that_changed_since_are_told(tmp_path, caplog):
    config = make_config(tmp_path)
    write(tmp_path, [GOOD])
    put_mel(config, GOOD)
    (tmp_path / "Beds").mkdir()
    (tmp_path / "Beds" / "train.json").write_text("[]")
    report = json.dumps({"made_of": {"../Beds/train.json": "before", "../Gone/train.json": ""}})
    (tmp_path / "Sounds" / "preprocess_report.json").write_text(report)
    load_split(config, "train")
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}/Beds/train.json has changed since Sounds was made of it")
    assert "run: sh egs/tta/audit/run_preprocess.sh" in line
