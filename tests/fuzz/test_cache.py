"""Files of the cache: as they were written, or named and made again; never believed."""

import json
import pickle

import pytest
import torch
from fuzz import mutations
from fuzz.harness import NO_FILES, attempt, check, examples, nothing, write
from hypothesis import given, note
from hypothesis import strategies as st
from made_up import save

from bench.config import loader, settings
from bench.encoders.encoder import Encoder, load_encoder
from bench.results import storage
from bench.statistics.cache import resampled_scores
from bench.training.checkpoint import read_checkpoint, save_checkpoint

BACKBONE = "efficientnet_lite0"


@st.composite
def damages(draw, content):
    """Bytes that are not what was written."""
    kind = draw(st.sampled_from(["cut", "flip", "more", "before", "zeros", "other", "empty"]))
    note(kind)
    if kind == "cut":
        return draw(mutations.cuts(content))
    if kind == "flip":
        changed = bytearray(content)
        changed[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
        return bytes(changed)
    if kind == "more":
        return content + draw(st.binary(min_size=1, max_size=20))
    if kind == "before":
        return draw(st.binary(min_size=1, max_size=20)) + content
    if kind == "zeros":
        half = len(content) // 2
        return content[:half] + bytes(len(content) - half)
    if kind == "other":
        odd = [
            b"x",
            b"[]",
            b"null",
            b"\x80\x04.",
            b"PK\x03\x04",
            pickle.dumps({"key": "k"}),
            b"{" * 9,
        ]
        return draw(st.sampled_from(odd))
    return b""


class Kept:
    """A cache with a file of each kind that carries its own digest."""

    def __init__(self, root):
        self.cache = root / "cache"
        self.out = root / "out"
        save(self.out, "moco", 1.2)
        self.record = self.out / "made/voc_cls/moco/seed0.json"
        self.suite = loader.load("smoke")
        save_checkpoint(self.cache / "checkpoints/run.pt", "key", {"x": torch.arange(5)})
        self.readers = {
            "checkpoint": self.checkpoint,
            "resampled": self.resampled,
            "settings": self.settings,
        }
        self.expected = {kind: read() for kind, read in self.readers.items()}
        self.paths = {
            "checkpoint": self.cache / "checkpoints/run.pt",
            "resampled": next(self.cache.glob("resampled/*.npz")),
            "settings": next(self.cache.glob("settings/*.json")),
        }
        self.contents = {kind: path.read_bytes() for kind, path in self.paths.items()}

    def checkpoint(self):
        """Its values; a damaged one begins anew, with the same values here."""
        lines = []
        path = self.cache / "checkpoints/run.pt"
        state = read_checkpoint(path, "key", torch.device("cpu"), lines.append)
        if state is None:
            assert not path.exists() or (len(lines) == 1 and str(path) in lines[0])
            return [*range(5)]
        return state["x"].tolist()

    def resampled(self):
        record = storage.read(self.record)
        return resampled_scores(self.record, record, self.cache).values.tolist()

    def settings(self):
        return settings.resolved_task_settings(self.suite, "voc_cls", self.cache)

    def restore(self, kind):
        write(self.paths[kind], self.contents[kind])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return Kept(tmp_path_factory.mktemp("kept"))


KINDS = ("checkpoint", "resampled", "settings")


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data())
def test_a_damaged_file_changes_nothing(kept, kind, data):
    spoilt = data.draw(damages(kept.contents[kind]))
    if spoilt == kept.contents[kind]:
        return
    write(kept.paths[kind], spoilt)
    result = attempt("cache", kept.readers[kind], kept.cache)
    check("harmless", result, kept.expected[kind])
    kept.restore(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", [*NO_FILES, nothing])
def test_what_is_no_file_changes_nothing(kept, kind, spoil):
    spoil(kept.paths[kind])
    result = attempt("cache", kept.readers[kind], kept.cache)
    check("harmless", result, kept.expected[kind])
    kept.restore(kind)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    Encoder(loader.load("smoke").backbone.name).save(path)
    return path, path.read_bytes()


@examples(60)
@given(data=st.data())
def test_an_encoder_of_any_content(encoder, data):
    path, content = encoder
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    kind = data.draw(st.sampled_from(["cut", "length", "metadata", "tensor", "other", "more"]))
    note(kind)
    if kind == "cut":
        spoilt = content[
            : data.draw(st.sampled_from([0, 1, 7, 8, 9, 100, length, length + 8, -1, -100]))
        ]
    elif kind == "length":
        number = data.draw(st.sampled_from([0, 1, length - 1, length + 1, 2**62, 2**64 - 1]))
        spoilt = number.to_bytes(8, "little") + content[8:]
    elif kind == "other":
        spoilt = data.draw(st.sampled_from([b"x" * 100, b"{}", pickle.dumps([1]), bytes(64)]))
    elif kind == "more":
        spoilt = content + b"x"
    else:
        name = data.draw(st.sampled_from(sorted(k for k in head if k.endswith("weight"))))
        about = head["__metadata__"]
        if kind == "metadata":
            key = data.draw(st.sampled_from(sorted(about)))
            odd = ["", "x", "[]", "null", "{}x", '{"views_seen": "x"}', "rgb rgb", "L"]
            about[key] = data.draw(st.sampled_from(odd))
            if data.draw(st.booleans()):
                del about[key]
        else:
            change = data.draw(
                st.sampled_from(
                    [{"dtype": "F64"}, {"dtype": "x"}, {"shape": [1]}, {"shape": [-1]}, None]
                )
            )
            if change is None:
                del head[name]
            else:
                head[name] = head[name] | change
        note(f"{name} {about}"[:300])
        text = json.dumps(head).encode()
        spoilt = len(text).to_bytes(8, "little") + text + content[8 + length :]
    write(path, spoilt)
    backbone = loader.load("smoke").backbone.name
    check("harmful", attempt("cache", lambda: load_encoder(path, backbone)), None)
    write(path, content)


@pytest.mark.parametrize("spoil", NO_FILES)
def test_an_encoder_that_is_no_file(encoder, spoil):
    path, content = encoder
    spoil(path)
    backbone = loader.load("smoke").backbone.name
    check("harmful", attempt("cache", lambda: load_encoder(path, backbone)), None)
    write(path, content)
