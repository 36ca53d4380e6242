"""What ``memory.report`` answers with, and what ``rkvisorctl leaks`` makes of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rkvisor.protocol.memory import BLIND_SPOT
from rkvisor.supervisor.ctl.amounts import amount, duration
from rkvisor.supervisor.ctl.leaks import _arguments, details, sparkline, worst
from rkvisor.supervisor.ctl.leaks_page import render
from rkvisor.supervisor.ctl.leaks_plot import nice_step
from rkvisor.supervisor.memory.attribution import Attribution
from rkvisor.supervisor.memory.estimate import estimate
from rkvisor.supervisor.memory.history import SUPERVISOR, History, Life
from rkvisor.supervisor.memory.judge import Judgement
from rkvisor.supervisor.memory.limits import Limit
from rkvisor.supervisor.memory.reporting import evenly, report
from rkvisor.supervisor.memory.sample import Mark, Sample
from rkvisor.supervisor.memory.standing import Standing

MB = 1 << 20


LIMIT = Limit("max_rss", 64 * MB)


def life(worker: str, rate: int, count: int = 400) -> Life:
    """One that leaks *rate* bytes a request."""
    made = Life(worker=worker, process=f"e:{worker}", pid=77, began_s=100.0)
    for n in range(count):
        held = 20 * MB + rate * n
        made.add(
            Sample(at_s=100.0 + n, wall_s=5000.0 + n, requests=n, rss_bytes=held, rss_anon_bytes=held, descriptors=9)
        )
    return made


def answer(verdict: str = "leaking", points: int = 50, worker: str | None = None) -> Any:
    """Of rkvisord, of a worker that leaks 16 KiB a request and said so, and of its process before."""
    before = life("demo:0", 0, 20)
    before.end(50.0, "recycled: <max_rss>")
    history = History([life(SUPERVISOR, 0), before, life("demo:0", 16384)])
    history.lives("demo:0")[1].verdicts.append((300.0, "leaking"))
    history.lives("demo:0")[1].marks.append(Mark(at_s=103.0, kind="lora", text="rkllm.load_lora"))

    def judge(one: Life) -> Judgement:
        found = estimate(one.samples(), limits=[LIMIT])
        said: Any = verdict if one.worker == "demo:0" else found.verdict
        known = Judgement(standing=Standing(said), attribution=Attribution(cause="runtime", reasons=("because",)))
        known.report = found
        return known

    made = report(history, judge, lambda _: [LIMIT], worker=worker, points=points)
    return msgspec.json.decode(msgspec.json.encode(made))


def test_a_report_has_the_fields_that_the_design_fixes_and_rkvisord_comes_last() -> None:
    rows = answer()["workers"]
    assert [row["name"] for row in rows] == ["demo:0", "rkvisord"]
    row = rows[0]
    assert (row["pid"], row["verdict"], row["requests"]) == (77, "leaking", 399)
    assert row["rss_bytes"] == 20 * MB + 16384 * 399
    anon = row["series"][0]
    assert anon["name"] == "anon"
    assert anon["low"] <= anon["bytes_per_request"] <= anon["high"]
    assert anon["bytes_per_hour"] == pytest.approx(16384 * 3600, rel=0.01)
    assert row["limit_in_s"] == pytest.approx((44 * MB - 16384 * 399) / 16384, rel=0.02)
    assert (row["reasons"], rows[1]["reasons"]) == (["because"], [])


def test_what_cannot_be_seen_is_said_of_workers_and_not_of_rkvisord() -> None:
    worker, own = answer()["workers"]
    assert BLIND_SPOT in worker["notes"]
    assert BLIND_SPOT not in own["notes"]
    assert [one["visible"] for one in worker["series"]] == [True, True, False, True]


def test_no_series_leaks_where_that_is_not_confirmed() -> None:
    assert {one["verdict"] for one in answer("suspect")["workers"][0]["series"]} == {"suspect", "clean"}


def test_times_on_the_wire_are_wall_clock() -> None:
    row = answer()["workers"][0]
    assert row["series"][0]["line"][-1][0] == pytest.approx(5399, abs=15)
    assert row["lives"][0]["ended"] == pytest.approx(4950)
    at, requests = row["lives"][1]["points"][0][:2]
    assert at == 5000.0 + requests
    assert row["lives"][1]["marks"] == [{"time": 5003.0, "kind": "lora", "text": "rkllm.load_lora"}]
    assert row["lives"][0]["marks"] == []


def test_a_report_holds_as_many_points_as_were_asked_for_the_first_and_the_last_among_them() -> None:
    assert [len(one["points"]) for one in answer(points=50)["workers"][0]["lives"]] == [20, 50]
    assert answer(points=0)["workers"][0]["lives"] == []
    assert evenly(range(100), 3) == [0, 49, 99]
    assert evenly(range(100), 1) == [99]
    assert [row["name"] for row in answer(worker="rkvisord")["workers"]] == ["rkvisord"]


def test_amounts_and_durations_are_short() -> None:
    assert [amount(n) for n in (0, 1023, 1024, 1536 * 1024, -1024)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "-1.0 KiB",
    ]
    assert [duration(n) for n in (0, 59, 60, 3725, 90000)] == ["0 s", "59 s", "1 min", "1 h 2 min", "1 d 1 h"]


def test_a_sparkline_has_its_width_and_is_flat_where_nothing_moves() -> None:
    assert sparkline([], 8) == ""
    assert sparkline([1e6, 1e6 + 10, 1e6], 8) == "▁▁▁"
    assert sparkline([float(n) for n in range(100)], 8) == "▁▂▃▄▅▆▇█"


def test_words_behind_leaks_are_understood_or_refused() -> None:
    assert _arguments(["demo:0", "--html", "x.html"]) == ("demo:0", False, Path("x.html"))
    assert _arguments(["--html=x.html"]) == (None, False, Path("x.html"))
    assert _arguments(["--json"]) == (None, True, None)
    for words in (["--html"], ["--xml"], ["a", "b"], ["--json", "--html", "f"], ["--html", "--json"]):
        with pytest.raises(ValueError, match=r"leaks|--html"):
            _arguments(words)


def test_what_grows_is_told_with_its_interval_its_limit_and_its_cause() -> None:
    row = answer()["workers"][0]
    found = worst(row)
    assert found is not None
    assert found["name"] == "anon"
    text = "\n".join(details(row, is_alone=False))
    assert "+16.0 KiB/request (16.0 KiB to 16.0 KiB)" in text
    assert "64.0 MiB (max_rss), reached in 40 min" in text
    assert "because" in text
    assert details(answer()["workers"][1], is_alone=False) == []
    assert "cannot be read" in "\n".join(details(row, is_alone=True))


@pytest.mark.parametrize("span", [1.0, 7.0, 900.0, 1e6, 3e8, 5e12])
def test_grid_lines_are_few_and_at_round_numbers(span: float) -> None:
    assert 1 <= span / nice_step(span, is_count=False) <= 8 or span < 4
    assert nice_step(40.0, is_count=True) == 10


class _Balance(HTMLParser):
    """Every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Closed already."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_escapes_what_it_shows_and_has_a_plot_for_each_series() -> None:
    page = render(answer(), now=0.0)
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"https?:|src=|<script|url\(", page)
    assert "recycled: &lt;max_rss&gt;" in page
    assert BLIND_SPOT in page
    assert page.count('class="fit"') == page.count('class="band"') == 1
    assert page.count('class="recycled"') == 3
    assert page.count('class="accused"') == 3
    assert ": leaking</li>" in page
    assert page.index("demo:0") < page.index("rkvisord <span")


def test_a_plot_shows_the_life_that_lasts_and_the_list_below_it_all() -> None:
    """A process of last month would leave that of today a line's width."""
    found = answer()
    old = found["workers"][0]["lives"][0]
    old["points"] = [[point[0] - 30 * 86400.0, *point[1:]] for point in old["points"]]
    old["ended"] -= 30 * 86400.0
    page = render(found, now=0.0)
    assert page.count('class="recycled"') == 0
    assert "recycled: &lt;max_rss&gt;" in page


def test_a_life_of_which_no_sample_could_be_read_is_left_out() -> None:
    history = History([Life(worker="demo:0", process="x:1", pid=0, began_s=1.0, ended_s=2.0), life("demo:0", 0)])
    made = report(history, lambda _: Judgement(), lambda _: [], worker=None, points=9)
    assert [one.began for one in made.workers[0].lives] == [5000.0]


def test_a_page_without_workers_says_so() -> None:
    assert "no worker runs" in render({"workers": []}, now=0.0)
