import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessors.source import Skipped
from preprocessors.table import read_table, usable_caption
from utils.errors import UserError


def read(tmp_path, content: bytes | str):
    path = tmp_path / "captions.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    skipped = Skipped()
    return read_table(path, ("file", "caption"), skipped), dict(skipped.by_reason())


@pytest.mark.parametrize(
    "content",
    [
        'file,caption\na.wav,"A dog, barking"\n',
        '\ufefffile,caption\r\na.wav,"A dog, barking"\r\n',
        'file,caption\ra.wav,"A dog, barking"',
        ' file ,"caption"\n\na.wav,"A dog, barking"\n\n',
    ],
    ids=["unix", "excel", "old mac", "blank lines"],
)
def test_ways_to_write_the_same(tmp_path, content):
    rows, skipped = read(tmp_path, content)
    assert [row for _, row in rows] == [{"file": "a.wav", "caption": "A dog, barking"}]
    assert not skipped


def test_quotes_and_line_breaks_inside_a_field(tmp_path):
    rows, _ = read(tmp_path, 'file,caption\n"a\nb"".wav",Waves\nc.wav,Rain\n')
    assert rows == [
        ("captions.csv line 3", {"file": 'a\nb".wav', "caption": "Waves"}),
        ("captions.csv line 4", {"file": "c.wav", "caption": "Rain"}),
    ]


def test_rows_of_another_length_are_skipped(tmp_path):
    rows, skipped = read(tmp_path, "file,caption\na.wav,A dog, barking\nb.wav,Rain\nc.wav\n")
    assert [row["file"] for _, row in rows] == ["b.wav"]
    assert skipped == {
        "wrong number of columns (a comma outside quotes?)": [
            "captions.csv line 2",
            "captions.csv line 4",
        ]
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\ufeff \r\n", "is empty"),
        ("file,caption\n", "a header but no rows"),
        ("a.wav,Rain\n", "must name the columns file,caption"),
        ("file;caption\na.wav;Rain\n", "separated by commas"),
        ("file,caption,file\na,b,c\n", "column 'file' stands twice"),
        ('file,caption\na.wav,"Rain\nb.wav,Wind\n', "not a proper CSV"),
        ('file,caption\na.wav,"Rain" falls\n', "line 2: not a proper CSV"),
        ("file,caption\na.wav," + "x" * 200_000, "not a proper CSV"),
        (b"file,caption\na.wav,caf\xe9\n", "not UTF-8"),
        ("file,caption\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_faults_of_the_file(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert "captions.csv" in str(caught.value)


def test_captions():
    skipped = Skipped()
    assert usable_caption(" A dog\n barks ", "line 2", skipped) == "A dog barks"
    assert usable_caption(" \t", "line 3", skipped) is None
    assert usable_caption("so " * 10_000, "line 4", skipped) is None
    assert dict(skipped.by_reason()) == {
        "caption of more than 10000 characters": ["line 4"],
        "empty caption": ["line 3"],
    }


cells = st.text(st.sampled_from('ab",\r\n;é🐕\0 \ufeff') | st.characters(), max_size=12)


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.binary()
    | st.lists(st.lists(cells, min_size=1).map(",".join)).map(
        lambda lines: "\n".join(["file,caption", *lines]).encode("utf-8", "replace")
    )
)
def test_any_content_is_read_or_a_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        for _, row in read_table(path, ("file", "caption"), Skipped()):
            assert all(isinstance(value, str) for value in row.values())
