"""The bounded backlog of the log."""

from __future__ import annotations

from rkvisor.supervisor.backlog import Backlog


def backlog(*pieces: str) -> Backlog:
    one = Backlog(lambda count: f"-{count}\n", room=20)
    for piece in pieces:
        one.put(piece)
    return one


def rest(log: Backlog) -> str:
    pieces = []
    while (piece := log.take()) is not None:
        pieces.append(piece)
    return "".join(pieces)


def test_what_fits_comes_out_in_order_and_nothing_else() -> None:
    log = backlog("one\n", "two\n", "three\n", "four5\n")
    assert rest(log) == "one\ntwo\nthree\nfour5\n"
    log.put("next\n")
    assert rest(log) == "next\n"


def test_lines_that_do_not_fit_are_counted_where_they_are_missing_once_all_before_is_out() -> None:
    log = backlog("aaaaaaaaa\n", "bbbbbbbb\n", "c\nd\n")
    assert rest(log) == "aaaaaaaaa\nbbbbbbbb\n-2\n"
    assert log.take() is None
    log.put("next\n")
    assert rest(log) == "next\n"


def test_once_full_it_takes_nothing_in_until_half_of_the_room_is_free() -> None:
    log = backlog("aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n")
    assert log.take() == "aaaa\n"
    log.put("f\n")  # would fit
    assert log.take() == "bbbb\n"
    log.put("g\n")
    log.put("too long\n")
    assert rest(log) == "cccc\ndddd\n-2\ng\n-1\n"


def test_a_line_that_is_longer_than_the_room_is_dropped_and_counted() -> None:
    assert rest(backlog("a line of 20 letters.\n")) == "-1\n"
