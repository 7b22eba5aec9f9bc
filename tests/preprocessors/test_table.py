import contextlib
import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessors.table import fault_of_caption, one_line, read_table
from utils.errors import UserError


def read(tmp_path, content: bytes | str):
    path = tmp_path / "captions.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows, skipped = read_table(path, ("file", "caption"))
    return rows, {
        skip.reason: [s.name for s in skipped if s.reason == skip.reason] for skip in skipped
    }


@pytest.mark.parametrize(
    "content",
    [
        'file,caption\na.wav,"A dog, barking"\n',
        '\ufefffile,caption\r\na.wav,"A dog, barking"\r\n',
        'file,caption\ra.wav,"A dog, barking"',
        ' file ,"caption"\n\na.wav,"A dog, barking"\n\n',
        'file, caption\na.wav, "A dog, barking"\n',
        'file,caption,,\na.wav,"A dog, barking",,\n,,,\n',
        "file;caption\r\na.wav;A dog, barking\r\n",
        "file\tcaption\na.wav\tA dog, barking\n",
    ],
    ids=[
        *("unix", "excel", "old mac", "blank lines", "blanks after commas", "empty columns"),
        *("semicolons", "tabs"),
    ],
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


def test_rows_of_another_length_between_semicolons(tmp_path):
    rows, skipped = read(tmp_path, "file;caption\na.wav;A dog; barking\nb.wav;Rain\n")
    assert [row["file"] for _, row in rows] == ["b.wav"]
    assert [*skipped] == ["wrong number of columns (a semicolon outside quotes?)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\ufeff \r\n", "is empty"),
        ("file,caption\n", "a header but no rows"),
        ("a.wav,Rain\n", "must name the columns file,caption"),
        ("file|caption\na.wav|Rain\n", "separated by commas"),
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


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ("file,caption\na.wav,A dog\nbarks\nb.wav,Rain\n", ["A dog barks", "Rain"]),
        (
            "file,caption\na.wav,A dog\n\nbarks,\nat me,,\nb.wav,Rain\n",
            ["A dog barks at me", "Rain"],
        ),
        ("file,caption,split\na.wav,A dog\nbarks,train\nb.wav,Rain,\n", ["A dog barks", "Rain"]),
    ],
    ids=["last column", "with a spreadsheet's commas", "in the middle"],
)
def test_a_caption_that_was_broken_over_lines(tmp_path, content, captions):
    rows, skipped = read(tmp_path, content)
    assert [(row["file"], row["caption"]) for _, row in rows] == [
        ("a.wav", captions[0]),
        ("b.wav", captions[1]),
    ]
    assert not skipped


def test_lines_that_may_be_rows_of_their_own_are_named_and_not_joined(tmp_path):
    rows, skipped = read(tmp_path, "file,caption\na,Rain\nb\nc.wav,Wind\nd.wav\ne,f,g\n")
    assert [row["caption"] for _, row in rows] == ["Rain", "Wind"]
    (lines,) = skipped.values()
    assert lines == ["captions.csv line 3", "captions.csv line 5", "captions.csv line 6"]


def test_captions():
    assert one_line(" A dog\n barks ") == "A dog barks"
    assert one_line(" \t") == ""
    assert fault_of_caption("A dog") is None
    assert fault_of_caption("") == "empty caption"
    assert fault_of_caption("so " * 10_000) == "caption of more than 10000 characters"


cells = st.text(st.sampled_from('ab",\r\n;é🐕\0 \ufeff') | st.characters(), max_size=12)


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.binary()
    | st.lists(st.lists(cells, min_size=1).map(",".join)).map(
        lambda lines: "\n".join(["file,caption", *lines]).encode("utf-8", "replace")
    )
)
def test_any_content_is_read_or_a_user_error_and_no_other(tmp_path_factory, content):
    """A search for crashes: an exception that is no UserError fails it; no outcome is asserted."""
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        read_table(path, ("file", "caption"))


plain = st.text(st.sampled_from('ab",\r\n;é🐕 '), min_size=1, max_size=12)


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.tuples(plain.map("{}.wav".format), plain), min_size=1))
def test_what_a_csv_writer_writes_comes_back(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("file", "caption"), *pairs])
    path.write_bytes(table.getvalue().encode())
    rows, skipped = read_table(path, ("file", "caption"))
    assert [(row["file"], row["caption"]) for _, row in rows] == pairs
    assert not skipped
