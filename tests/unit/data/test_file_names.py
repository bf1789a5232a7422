"""Names of many files in one block of memory: a sequence like any other."""

import pickle

import pytest

from bench.data.manifest import FileNames

NAMES = ("b/é.jpg", "a.jpg", "", "c/\udce9.png", "日本.jpg")


@pytest.fixture
def names():
    return FileNames.of(NAMES)


def test_they_are_a_sequence(names):
    assert len(names) == 5
    assert [*names] == [*NAMES]
    assert [names[index] for index in range(-5, 5)] == [*NAMES, *NAMES]
    assert names[1:4] == NAMES[1:4]
    assert names[::-2] == NAMES[::-2]
    assert names == NAMES
    assert names == FileNames.of(list(NAMES))
    assert names != NAMES[:4]
    assert names != (*NAMES[:4], "x")
    assert "a.jpg" in names
    with pytest.raises(IndexError):
        names[5]
    assert FileNames.of(names) is names


def test_none_are_a_sequence():
    assert [*FileNames.of(())] == []
    assert len(FileNames.of(())) == 0
    assert FileNames.of(()) == ()


def test_equal_names_have_equal_hashes(names):
    assert hash(names) == hash(FileNames.of(NAMES))


def test_some_of_them_in_another_order(names):
    assert names.take([4, 0]) == (NAMES[4], NAMES[0])


def test_they_are_the_same_in_another_process(names):
    assert pickle.loads(pickle.dumps(names)) == NAMES


def test_more_than_are_decoded_at_a_time():
    many = [f"{number}.jpg" for number in range(10_000)]
    assert [*FileNames.of(many)] == many
