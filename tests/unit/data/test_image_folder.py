import numpy as np
import pytest
import torch

from bench.data.image_files import read
from bench.data.image_folder import open_image_folder
from bench.data.stream import Stream
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.fixture
def folder(devkit, tmp_path):
    import shutil

    shutil.copytree(devkit / "corpus", tmp_path / "corpus")
    return tmp_path / "corpus"


def test_classes_are_folders_at_any_depth(folder):
    corpus = open_image_folder(folder, "stop", Reporter())
    assert len(corpus.labels) == 40
    assert corpus.classes == tuple(sorted(p.name for p in folder.iterdir()))
    nested = folder / corpus.classes[0] / "images"  # Tiny-ImageNet's own layout
    nested.mkdir()
    for path in list(nested.parent.glob("*.jpg")):
        path.rename(nested / path.name)
    again = open_image_folder(folder, "stop", Reporter())
    assert sorted(again.labels) == sorted(corpus.labels)


def test_a_truncated_image_stops_the_run_or_is_skipped_and_named(folder):
    bad = next(folder.glob("*/*.jpg"))
    bad.write_bytes(bad.read_bytes()[:-40])
    with pytest.raises(UserError, match=rf"{bad.name}: is truncated"):
        open_image_folder(folder, "stop", Reporter())
    corpus = open_image_folder(folder, "skip", Reporter())
    assert corpus.images.skipped == (bad.relative_to(folder).as_posix(),)
    assert len(corpus.labels) == len(corpus.images.files) == 39


def test_a_image_damaged_inside_is_named_when_it_is_decoded(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"\xff\xd8\xff" + b"\x00" * 200 + b"\xff\xd9")
    with pytest.raises(UserError, match=r"x\.jpg: cannot be decoded"):
        read(path)


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_image_folder(tmp_path / "absent", "stop", Reporter())
    with pytest.raises(UserError, match="holds no images in class folders"):
        open_image_folder(tmp_path, "stop", Reporter())


def test_a_gray_image_has_three_equal_channels(tmp_path):
    from PIL import Image

    path = tmp_path / "gray.jpg"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    image = read(path)
    assert image.shape == (3, 16, 16)
    assert torch.equal(image[0], image[2])


def test_the_stream_is_a_shuffled_pass_and_depends_on_the_position_alone(smoke_data):
    corpus = smoke_data.corpus
    count = len(corpus.labels)

    def drawn(seed=0):
        transform = lambda image, label: (label, torch.rand(()).item())  # noqa: E731
        return Stream(corpus.images, corpus.labels, seed, transform, 3 * count)

    stream = drawn()
    first = [stream[p] for p in range(count)]
    second = [stream[p] for p in range(count, 2 * count)]
    assert sorted(label for label, _ in first) == sorted(corpus.labels)
    assert [label for label, _ in first] != [label for label, _ in second]
    assert drawn()[count + 3] == second[3]
    assert drawn(seed=1)[0] != first[0]
    assert len({noise for _, noise in first + second}) == 2 * count
