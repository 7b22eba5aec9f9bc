import io

import pytest

from utils import progress as module
from utils.progress import print_line, progress, write_line


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def fileno(self) -> int:
        raise io.UnsupportedOperation


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    screen = Screen(terminal=True)
    monkeypatch.setattr("sys.stderr", screen)
    assert list(progress([1, 2], title="work", unit="step")) == [1, 2]
    assert "\r" in screen.getvalue()
    assert "100%" in screen.getvalue()


def test_elsewhere_it_is_a_line_now_and_then(monkeypatch):
    screen = Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)
    with progress(total=500, title="work", unit="step") as bar:
        for _ in range(500):
            bar.update()
            bar.set_postfix({"loss": "0.5"}, refresh=False)
        write_line("a word on the way")
    lines = screen.getvalue().splitlines()
    assert lines[0].startswith("work: 0 of 500, 00:00 gone")
    assert lines[1] == "a word on the way"
    assert lines[2].startswith("work: 500 of 500")
    assert lines[2].endswith("loss=0.5")
    assert len(lines) == 3


@pytest.mark.parametrize("terminal", [True, False])
def test_results_are_lines_of_their_own(monkeypatch, terminal):
    screen = Screen(terminal)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", screen)
    with progress(total=2, title="work", unit="step"):
        shown = len(screen.getvalue())
        print_line("0000.wav")
    cleared, printed, rest = screen.getvalue()[shown:].partition("0000.wav\n")
    assert printed
    assert "work" not in cleared
    assert cleared.endswith("\r") == terminal
    assert rest.count("work") == 1 + terminal  # on a terminal, the bar is drawn anew at once


@pytest.mark.parametrize("terminal", [True, False])
def test_a_device_that_fails_ends_nothing(monkeypatch, terminal):
    class Broken(Screen):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Broken(terminal))
    monkeypatch.setattr(module, "SECONDS", 0)
    assert list(progress(range(3), title="work", unit="step")) == [0, 1, 2]
    write_line("lost")
