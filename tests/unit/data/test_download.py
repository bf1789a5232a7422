"""Downloads from a server on this machine that breaks, changes and refuses."""

import errno
import hashlib
import io
import os
import shutil
import socket
import tarfile
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from loopback import CONTENT, OTHER, Handler

from bench.data.published import archives, download
from bench.data.published.catalog import Archive
from bench.errors import UserError
from bench.runtime.progress import Reporter


def archive_of(*urls, content=CONTENT, algorithm="sha256", **changes):
    checksum = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    fields = {"size": len(content), "checksum": checksum, "source": "https://example.org"}
    return Archive("file.tar", urls, **fields | changes)


def get(archive, folder):
    return download.download(archive, folder, Reporter())


def test_a_file_arrives_whole_and_nothing_else_is_left(server, tmp_path):
    path = get(archive_of(server.url, algorithm="md5"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
    assert server.requests == [None]


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    archive = archive_of(server.url)
    get(archive, tmp_path)
    server.requests.clear()
    get(archive, tmp_path)
    assert server.requests == []


def test_a_dropped_connection_resumes_where_it_broke(server, tmp_path):
    server.breaks = [3000, 2000]
    assert get(archive_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=3000-", "bytes=5000-"]


def test_another_run_resumes_what_was_interrupted(server, tmp_path):
    server.breaks = [3000, 0, 0, 0]
    archive = archive_of(server.url)
    with pytest.raises(UserError, match=r"the connection broke .* to resume"):
        get(archive, tmp_path)
    assert (tmp_path / "file.tar.part").read_bytes() == CONTENT[:3000]
    assert download.part_size(archive, tmp_path) == 3000
    server.requests.clear()
    assert get(archive, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=3000-"]


def test_a_run_that_was_killed_before_renaming_asks_for_nothing(server, tmp_path):
    server.breaks = [3000, 0, 0, 0]
    with pytest.raises(UserError):
        get(archive_of(server.url), tmp_path)
    (tmp_path / "file.tar.part").write_bytes(CONTENT)
    server.requests.clear()
    assert get(archive_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("etag", ['"one"', None, 'W/"weak"'])
def test_a_server_that_cannot_resume_is_asked_for_all(server, tmp_path, etag):
    server.etag = etag
    server.ranges = False
    server.breaks = [3000]
    assert get(archive_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=3000-" if etag == '"one"' else None]


def test_a_file_that_changed_on_the_server_begins_anew(server, tmp_path):
    server.breaks = [3000, 0, 0, 0]
    with pytest.raises(UserError):
        get(archive_of(server.url), tmp_path)
    server.content, server.etag = OTHER, '"two"'
    path = get(archive_of(server.url, content=OTHER), tmp_path)
    assert path.read_bytes() == OTHER


def test_a_part_that_is_too_long_begins_anew(server, tmp_path):
    server.breaks = [3000, 0, 0, 0]
    with pytest.raises(UserError):
        get(archive_of(server.url), tmp_path)
    server.status = 416
    with pytest.raises(UserError, match="HTTP 416"):
        get(archive_of(server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_is_not_appended(server, tmp_path):
    server.breaks = [3000, 0, 0, 0]
    with pytest.raises(UserError):
        get(archive_of(server.url), tmp_path)
    server.content, server.etag, server.careless = OTHER, '"two"', True
    server.requests.clear()
    assert get(archive_of(server.url, content=OTHER), tmp_path).read_bytes() == OTHER
    assert server.requests == ["bytes=3000-", None]


def test_a_wrong_checksum_removes_the_file_and_names_it(server, tmp_path):
    server.content = OTHER
    with pytest.raises(UserError, match=r"file\.tar has the sha256 .*, not .*; it was removed"):
        get(archive_of(server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_refused_before_it_is_downloaded(server, tmp_path):
    with pytest.raises(UserError, match="has a file of 10,240 bytes, not 12"):
        get(archive_of(server.url, size=12), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_checksum_is_called_not_verified(server, tmp_path, capfd):
    get(archive_of(server.url, checksum=""), tmp_path)
    assert "file.tar: not verified" in capfd.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_a_mirror_that_refuses_is_named_in_one_line(server, tmp_path, status, requests):
    server.status = status
    with pytest.raises(UserError, match=f"{server.url}: HTTP {status} ") as refusal:
        get(archive_of(server.url), tmp_path)
    assert "\n" not in str(refusal.value)
    assert len(server.requests) == requests


def test_the_next_mirror_is_tried(server, tmp_path, capfd):
    missing = server.url.replace("/file", "/gone")
    assert get(archive_of(missing, server.url), tmp_path).read_bytes() == CONTENT
    assert f"{missing}: HTTP 404 (Not Found)" in capfd.readouterr().err.replace("\n", "")


def test_a_mirror_that_cannot_be_reached_is_named(server, tmp_path):
    url = "http://127.0.0.1:1/file"
    with pytest.raises(UserError, match=f"{url}: cannot be reached .*refused"):
        get(archive_of(url), tmp_path)


def test_offline_each_mirror_is_tried_once(server, tmp_path, monkeypatch):
    def unknown(*arguments, **named):
        server.requests.append("name")
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"cannot be reached \(Name or service not known\)"):
        get(archive_of("http://one.example/file", "http://two.example/file"), tmp_path)
    assert server.requests == ["name", "name"]


def test_a_mirror_that_does_not_answer_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    silent = type("Silent", (Handler,), {"do_GET": lambda self: threading.Event().wait(1)})
    server.RequestHandlerClass = silent
    with pytest.raises(UserError, match="no answer in time"):
        get(archive_of(server.url), tmp_path)


def test_a_disk_without_space_is_said_before_anything_is_asked(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 10**9))
    with pytest.raises(UserError, match=r"2\.5 GB are needed, 1\.0 GB are free"):
        download.check_space(tmp_path, 25 * 10**8)


def test_a_disk_that_gets_full_is_said_and_resumed(server, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, chunk):
            if self.tell() >= 4000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(chunk[:4000])

    opened = Path.open

    def open_full(path, *arguments, **named):
        full = path.suffix == ".part"
        return Full(path, "a") if full else opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(UserError, match=r"No space left .* to resume"):
        get(archive_of(server.url), tmp_path)
    monkeypatch.undo()
    assert get(archive_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=4000-"]


def test_a_file_of_somebody_else_is_not_replaced(server, tmp_path):
    (tmp_path / "file.tar").write_bytes(OTHER)
    with pytest.raises(UserError, match=r"file\.tar: has the sha256 .*; move it away"):
        get(archive_of(server.url), tmp_path)
    assert (tmp_path / "file.tar").read_bytes() == OTHER


def tar(path, members, mode="w:gz"):
    """A tar file of (name, content) and of `TarInfo`."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                archive.addfile(entry, io.BytesIO(member[1]))
    return path


def special(name, kind, target="", **headers):
    entry = tarfile.TarInfo(name)
    entry.pax_headers = headers
    entry.type, entry.linkname = kind, target
    return entry


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return path


RULES = ((r"data/(.+)", r"placed/\1"),)


def unpack(path, folder, unpacked=10**5, rules=RULES):
    archive = Archive(path.name, (), 0, "", "", rules, unpacked)
    archives.unpack(archive, path, folder, lambda _: None)


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_members_go_where_the_catalog_says(tmp_path, kind):
    members = [("data/a.txt", b"a"), ("data/b/c.txt", b"c"), ("other.txt", b"left out")]
    if kind == "zip":
        path = zipped(tmp_path / "x", [(*member, 0o100644) for member in members])
    else:
        path = tar(tmp_path / "x", members, "w" if kind == "tar" else "w:gz")
    target = tmp_path / "target"
    unpack(path, target)
    files = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*.txt")}
    assert files == {"placed/a.txt": b"a", "placed/b/c.txt": b"c"}


HOSTILE = {
    "parent": ([("data/../../escaped", b"x")], r"'\.\.' in its name"),
    "backslash": ([("data\\..\\..\\escaped", b"x")], r"'\.\.' in its name"),
    "absolute": ([("/escaped", b"x")], "absolute name"),
    "drive": ([("C:\\escaped", b"x")], "absolute name"),
    "folder": ([special("data/../../escaped", tarfile.DIRTYPE)], r"'\.\.' in its name"),
    "symbolic": ([special("data/a", tarfile.SYMTYPE, "/tmp"), ("data/a/b", b"x")], "is a link"),
    "hard": ([special("data/a", tarfile.LNKTYPE, "/etc/passwd")], "is a link"),
    "device": ([special("data/a", tarfile.CHRTYPE)], "device or a pipe"),
    "pipe": ([special("data/a", tarfile.FIFOTYPE)], "device or a pipe"),
    "twice": ([("data/a", b"x"), ("data/a", b"y")], "two members data/a"),
    "inside a file": ([("data/a", b"x"), ("data/a/b", b"y")], "two members data/a/b"),
    "no name": ([special("data/a", tarfile.REGTYPE, path="data/a\0b")], "no file can have"),
    "bomb": ([("data/a", bytes(2 * 10**5))], "unpacks to more than 100,000 bytes"),
    "many": ([(f"data/{index}", b"") for index in range(300)], "unpacks to more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_and_nothing_gets_outside(tmp_path, name):
    members, message = HOSTILE[name]
    inner = tmp_path / "inner"
    path = tar(tmp_path / "x.tgz", members)
    with pytest.raises(UserError, match=f"x.tgz: refused, .*{message}"):
        unpack(path, inner / "target", rules=((r".*", r"\g<0>"),))
    assert {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")} <= {"x.tgz", "inner"}
    assert {p.name for p in inner.glob("*")} <= {"target"}


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("data/../../escaped", 0o100644, "in its name"),
        ("/escaped", 0o100644, "absolute name"),
        ("data/a", 0o120777, "is a link"),
        ("data/a", 0o020644, "device or a pipe"),
    ],
)
def test_a_hostile_zip_is_refused(tmp_path, name, mode, message):
    path = zipped(tmp_path / "x.zip", [(name, b"/etc/passwd", mode)])
    with pytest.raises(UserError, match=message):
        unpack(path, tmp_path / "target")
    assert not list((tmp_path / "target").rglob("*"))


@pytest.mark.parametrize("kind", ["tgz", "zip", "text"])
def test_a_damaged_archive_is_named(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "zip":
        zipped(path, [("data/a", CONTENT, 0)])
        path.write_bytes(path.read_bytes().replace(CONTENT[:100], OTHER[:100], 1))
    elif kind == "tgz":
        tar(path, [("data/a", os.urandom(10**4))])
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.write_text("no archive")
    with pytest.raises(UserError, match=r"is damaged .*remove it"):
        unpack(path, tmp_path / "target")
