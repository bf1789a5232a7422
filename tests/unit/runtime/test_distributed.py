"""Work that processes share; several real ones are in tests/cli/test_torchrun.py."""

import pytest

from bench.runtime import distributed


@pytest.mark.parametrize(
    ("rank", "expected"), [(0, [0, 4, 8]), (1, [1, 5, 9]), (2, [2, 6]), (3, [3, 7])]
)
def test_each_process_has_every_nth_item(monkeypatch, rank, expected):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", str(rank))
    assert [*distributed.share(range(10))] == expected


def test_one_process_computes_all_in_order():
    counts = []
    assert distributed.in_shares([3, 1, 2], lambda x: 10 * x, counts.append) == [30, 10, 20]
    assert counts == [1, 1, 1]
    taken = []
    distributed.in_rounds(iter("abc"), 3, taken.append)
    assert taken == [*"abc"]


def test_an_error_of_one_process_is_its_own():
    def fail(item):
        raise ValueError(item)

    with pytest.raises(ValueError, match="3"):
        distributed.in_shares([3], fail)
    with pytest.raises(ValueError, match="a"):
        distributed.in_rounds(iter("a"), 1, fail)
    with pytest.raises(SystemExit), distributed.together():
        raise SystemExit(4)


class UnreadableError(Exception):
    """Cannot be made again from its arguments, as pickle would."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def test_an_error_that_cannot_be_sent_is_its_text():
    sent = distributed._portable(UnreadableError(1, 2))
    assert type(sent) is RuntimeError
    assert str(sent) == "UnreadableError: 1 and 2"
    error = ValueError("as it is")
    assert distributed._portable(error) is error
