"""Progress: nothing for what is quick, sparse lines in a log, a bar on a terminal that goes away."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
import threading

import pytest

from pytest_multihost_env.report.progress import Lines, Meter, shown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(steps: list[tuple[float, int]], files: int | None = 100) -> list[str]:
    """Return what is written when, at each moment, so many files of one MB are done."""
    clock, said, meter = Clock(), [], Meter()
    display = Lines("making b from a", said.append, clock)
    meter.begin("copying", files, None if files is None else files * 1_000_000)
    for moment, done in steps:
        clock.now = 100.0 + moment
        meter.advance(done - meter.files, (done - meter.files) * 1_000_000)
        display.show(meter)
    return said


def test_quick_work_writes_nothing() -> None:
    assert lines([(0.2, 10), (1.9, 100)]) == []


def test_the_first_line_says_what_is_made_and_how_far_it_is() -> None:
    assert lines([(2.1, 12)]) == ["making b from a; copying: 12 of 100 files, 12 of 100 MB"]


def test_lines_come_every_ten_seconds_or_with_a_quarter_more() -> None:
    said = lines(
        [
            (2.1, 12),
            (4.0, 13),
            (9.0, 14),
            (12.2, 15),
            (14.0, 40),
            (15.3, 41),
            (16.0, 42),
            (20.0, 74),
            (23.1, 75),
            (24.0, 76),
        ]
    )
    assert [text.rpartition("copying: ")[2].split()[0] for text in said] == ["12", "15", "41", "74", "75"]


def test_without_totals_only_what_is_done_is_told() -> None:
    assert lines([(3.0, 1500)], files=None) == ["making b from a; copying: 1,500 files, 1.5 GB"]


def test_a_stage_that_counts_nothing_is_named() -> None:
    clock, said, meter = Clock(), [], Meter()
    display = Lines("making b from a", said.append, clock)
    clock.now += 3
    display.show(meter)  # waiting for another builder: nobody begins a stage
    meter.begin("finishing")
    display.show(meter)
    meter.end()
    clock.now += 30
    display.show(meter)
    assert said == ["making b from a; finishing"]


@pytest.mark.parametrize(
    ("done", "share"),
    [((0, 0), 0.0), ((50, 0), 0.25), ((100, 1_000_000), 1.0), ((400, 9_000_000), 1.0)],
)
def test_files_and_bytes_count_alike(done: tuple[int, int], share: float) -> None:
    meter = Meter()
    meter.begin("copying", 100, 1_000_000)
    meter.advance(*done)
    assert meter.share == share


@pytest.mark.parametrize(
    ("whole", "done", "told"),
    [
        ((None, None), (0, 0), ""),
        ((198, None), (99, 0), "99 of 198 files"),
        ((None, None), (0, 2_000), "2 kB"),
        ((41_229, 1_400_000_000), (12_000, 400_000_000), "12,000 of 41,229 files, 0.4 of 1.4 GB"),
        ((10, 5_000_000), (11, 6_000_000), "11 of 11 files, 6 of 6 MB"),
    ],
)
def test_only_what_counts_is_told(whole: tuple[int | None, int | None], done: tuple[int, int], told: str) -> None:
    meter = Meter()
    meter.begin("copying", *whole)
    meter.advance(*done)
    assert meter.told() == told


def test_an_error_goes_through_and_nobody_keeps_watching() -> None:
    with pytest.raises(ZeroDivisionError), shown("making b from a", print):
        raise ZeroDivisionError
    assert "progress" not in [thread.name for thread in threading.enumerate()]


PROGRAM = """
import sys, time
from pytest_multihost_env.report.progress import shown

def say(text):
    print(text, file=sys.stderr, flush=True)

with shown("making b from a", say) as meter:
    meter.begin("copying", 10, 10_000_000)
    for _ in range(int(sys.argv[1])):
        time.sleep(0.3)
        meter.advance(1, 1_000_000)
    say("a notice meanwhile")
    time.sleep(0.3)
    meter.end()
print("rich" in sys.modules)
"""


def on_terminal(steps: int, **variables: str) -> tuple[str, str]:
    """Return standard output, and what a terminal of 100 columns got."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "COLUMNS": "100", "TERM": "xterm", **variables}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(steps)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as child:
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        out = child.communicate()[0]
    os.close(ours)
    assert child.returncode == 0
    return out, text.decode()


def test_a_terminal_gets_a_bar_that_goes_away_and_standard_output_nothing() -> None:
    out, text = on_terminal(6)
    assert out == "True\n"
    assert text.startswith("making b from a\r\n")
    assert " of 10 files, " in text
    assert "a notice meanwhile" in text
    assert text.endswith("\x1b[1A\x1b[2K")  # up a line, and wiped


def test_what_is_quick_does_not_even_load_rich() -> None:
    assert on_terminal(1) == ("False\n", "a notice meanwhile\r\n")


def test_a_terminal_that_can_do_nothing_gets_lines() -> None:
    out, text = on_terminal(9, TERM="dumb")
    assert out == "False\n"
    assert text.splitlines()[0].startswith("making b from a; copying: ")
    assert "\x1b" not in text
