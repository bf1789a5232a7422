"""`bench data`: listed, fetched from a server on this machine, verified."""

import hashlib
import io
import tarfile

import pytest
from PIL import Image
from support import published_voc

from bench.data.published.catalog import CATALOG, Archive, PublishedDataset, Split


def packed():
    """A tar file of four images of two classes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for index in range(4):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), (60 * index, 0, 0)).save(image, "PNG")
            entry = tarfile.TarInfo(f"pets-1/{('cat', 'dog')[index % 2]}/{index}.png")
            entry.size = image.tell()
            image.seek(0)
            archive.addfile(entry, image)
    return stream.getvalue()


@pytest.fixture
def pets(server, monkeypatch):
    """A data set of the catalog whose mirror is the local server."""
    server.content = packed()
    checksum = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
    rules = ((r"pets-1/(.+\.png)", r"pets/train/\1"),)
    size = len(server.content)
    archive = Archive("pets.tgz", (server.url,), size, checksum, "here", rules, 10**6)
    splits = (Split("train", "train", 4, per_class=2),)
    layout = ("pets/train/CLASS/*.png",)
    args = ("pets", "Pets", "image_folder", "pets", "for tests", "https://example.org")
    monkeypatch.setitem(CATALOG, "pets", PublishedDataset(*args, splits, (archive,), layout))
    return server


def test_every_data_set_is_listed_with_terms_size_and_checksum(bench):
    listed = bench("data", "list")
    assert listed.status == 0
    for dataset in CATALOG.values():
        assert f"{dataset.name}: {dataset.title}" in listed.out
        assert dataset.terms in listed.out
        for archive in dataset.archives:
            assert f"{archive.size:,} bytes" in listed.out
            assert archive.checksum.partition(":")[2] in listed.out


@pytest.mark.parametrize("verb", ["list", "get", "verify"])
def test_every_help_has_an_example(bench, verb):
    assert f"Example: bench data {verb}" in " ".join(bench("data", verb, "--help").out.split())


def test_a_data_set_is_fetched_once_and_verified(bench, pets, tmp_path):
    pets.breaks = [100]
    got = bench("data", "get", "pets", "--data-root", tmp_path)
    assert (got.status, pets.requests) == (0, [None, "bytes=100-"])
    assert got.out.startswith(f"pets: is complete, in {tmp_path / 'pets'}")
    again = bench("data", "get", "pets", "--data-root", tmp_path)
    assert (again.status, len(pets.requests)) == (0, 2)
    assert "is complete already" in again.out
    verified = bench("data", "verify", "pets", "--data-root", tmp_path)
    assert (verified.status, verified.out) == (
        0,
        "pets: 4 files, nothing missing, broken or extra\n",
    )


def test_what_is_wrong_is_listed_with_status_1(bench, pets, tmp_path):
    bench("data", "get", "pets", "--data-root", tmp_path)
    (tmp_path / "pets/train/cat/0.png").unlink()
    (tmp_path / "pets/train/dog/1.png").write_bytes(b"no image")
    verified = bench("data", "verify", "pets", "--data-root", tmp_path)
    assert verified.status == 1
    assert verified.out.splitlines() == [
        "missing  pets/train/cat/0.png",
        "broken   pets/train/dog/1.png: differs from what was unpacked",
        "pets: 4 files, 1 missing, 1 broken, 0 extra",
    ]


@pytest.mark.parametrize("status", [404, 503])
def test_where_no_mirror_helps_the_files_to_put_in_place_are_said(bench, pets, tmp_path, status):
    pets.status = status
    got = bench("data", "get", "pets", "--data-root", tmp_path)
    assert (got.status, got.out) == (2, "")
    assert got.error.startswith("bench: pets.tgz: cannot be downloaded")
    for text in (pets.url, f"{tmp_path / 'archives'}", "pets/train/CLASS/*.png", "for tests"):
        assert text in got.err
    (tmp_path / "archives/pets.tgz").write_bytes(pets.content)
    assert bench("data", "get", "pets", "--data-root", tmp_path).status == 0


def test_imagenet_says_how_to_get_it_and_which_layout(bench, tmp_path):
    got = bench("data", "get", "imagenet", "--data-root", tmp_path)
    assert got.status == 2
    assert "https://www.image-net.org/download.php" in got.err
    assert "imagenet/train/WNID/*.JPEG" in got.err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_archive_is_one_line_and_leaves_nothing(bench, pets, tmp_path):
    pets.content = pets.content[:-1] + b"x"
    got = bench("data", "get", "pets", "--data-root", tmp_path)
    assert got.status == 2
    assert "it was removed" in got.error
    assert [p.name for p in tmp_path.rglob("*")] == ["archives", ".pets.lock"]


@pytest.mark.parametrize("verb", ["get", "verify"])
def test_an_unknown_name_is_one_line(bench, verb, tmp_path):
    outcome = bench("data", verb, "voc2006", "--data-root", tmp_path)
    assert outcome.status == 2
    assert outcome.error == "bench: unknown data set 'voc2006': did you mean voc2007 or voc2012?"


def test_a_data_set_that_is_not_there_is_one_line(bench, tmp_path):
    outcome = bench("data", "verify", "voc2007", "--data-root", tmp_path)
    assert outcome.status == 2
    assert "VOCdevkit/VOC2007: no such folder; bench data get voc2007" in outcome.error


def test_a_devkit_is_verified(bench, monkeypatch, tmp_path):
    monkeypatch.setitem(CATALOG, "small-voc", published_voc(tmp_path))
    verified = bench("data", "verify", "small-voc", "--data-root", tmp_path)
    assert verified.status == 0
    assert "small-voc: 12 files, nothing missing" in verified.out
