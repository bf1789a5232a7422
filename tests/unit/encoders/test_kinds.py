"""Kinds of backbone, read from timm's source."""

import timm

from bench.encoders import kinds
from bench.encoders.transformer import is_transformer


def test_the_source_says_what_timm_says():
    names = timm.list_models()
    found = {name for name in names if kinds.kind_of(name) == "transformer"}
    assert found == {name for name in names if is_transformer(name)}
    assert len(found) > 100 and len(names) - len(found) > 500


def test_what_is_suggested_is_of_its_kind():
    for name, kind in kinds.KINDS.items():
        assert {kinds.kind_of(kind.example), kinds.kind_of(kind.smallest)} == {name}
        assert timm.is_model(kind.example) and timm.is_model(kind.smallest)


def test_a_name_that_is_none_is_no_transformer():
    assert kinds.kind_of("no_model(") == kinds.kind_of("") == "convolutional"
