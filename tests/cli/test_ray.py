"""`bench run --on ray` on a real Ray: the leaderboard of a serial run, whatever ends when."""

import importlib.util
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from ray_cluster import cluster, processes
from submitting import (
    FAILS,
    age,
    claim,
    ended,
    held,
    lines,
    submitter,
    two_of_twelve_cells,
    until,
    waiting_method,
)

from bench.execution.engine import Job
from bench.execution.ray import Ray
from bench.runtime import claims

GPUS = "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"

LOCAL = f"raylet_socket_name={tempfile.gettempdir()}/pymp-"  # of a Ray started for a run

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None and os.environ.get("CI") != "true",
        reason="Ray is not installed",
    ),
]


@pytest.fixture(scope="module")
def nodes():
    with cluster() as nodes:
        yield nodes


@pytest.fixture
def submitters(nodes, tmp_path, cache):
    """Start submitters to a cluster of two nodes; those that run at the end are killed."""
    nodes.add_second()
    started = []

    def start(*arguments):
        settings = f"address={nodes.address},num_gpus=0"
        process = submitter(
            *(*arguments, "--on", "ray", "--engine-set", settings),
            out=tmp_path / "out",
            cache=cache,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_two_submitters_of_twelve_cells_give_the_leaderboard_of_a_serial_run(
    bench_run, submitters, tmp_path, out
):
    messages = "".join(two_of_twelve_cells(submitters, bench_run, tmp_path, out))
    assert messages.count("6 jobs submitted") == messages.count(" submitted; logs") == 1


def test_a_killed_worker_is_replaced_and_one_failing_cell_stops_nothing(submitters, tmp_path, out):
    path, begun, go = waiting_method(tmp_path)
    fails = tmp_path / "fails.py"
    fails.write_text(FAILS)
    process = submitters("--methods", f"{path},{fails},random_init", "--tasks", "voc_cls")
    until(lambda: lines(begun))
    os.kill(int(lines(begun)[0]), signal.SIGKILL)
    go()
    until(lambda: len(list(out.glob("smoke/*/*/seed0.json"))) == 2)
    assert len(lines(begun)) == 1, "nobody knows that it is dead before its claim is old"
    age(claim(out, "waits-seed0"))
    status, printed, err = ended(process)
    assert status == 1, err
    assert "FAILED: ValueError: no luck" in err
    assert "waits-seed0: its job ended without a record; submitted again (2 of 3)" in err
    assert "waits" in printed and "random_init" in printed
    assert "no luck" in (out / "smoke/LEADERBOARD.md").read_text()
    assert held(out) == []


def test_jobs_outlive_their_submitter_and_their_node(submitters, nodes, tmp_path, out):
    path, begun, go = waiting_method(tmp_path)
    asked = ("--methods", str(path), "--tasks", "voc_cls", "--seeds", "2")
    first = submitters(*asked)
    until(lambda: len(lines(begun)) == 2)
    first.kill()
    (lost,) = [pid for pid in map(int, lines(begun)) if nodes.second_has(pid)]
    nodes.kill_second()
    until(lambda: not Path(f"/proc/{lost}").exists())
    until(lambda: len(held(out)) == 1)
    second = submitters(*asked)
    until(lambda: "already" in second.stderr.readline())
    go()
    status, printed, err = ended(second)
    assert status == 0, err
    assert "submitted" not in err, "Ray itself starts it again, on the other node"
    assert "raylet" not in printed + err, "what Ray prints is for nobody here"
    assert len(lines(begun)) == 3
    assert held(out) == []


def test_ctrl_c_leaves_the_jobs_and_a_stale_claim_is_taken_over(submitters, tmp_path, out):
    path, begun, go = waiting_method(tmp_path)
    other = claims.Claims(claim(out, "x").parent, 600, lambda name: None, lambda name: None)
    assert other.take("waits-seed0")
    age(claim(out, "waits-seed0"))
    process = submitters("--methods", str(path), "--tasks", "voc_cls")
    until(lambda: lines(begun))
    process.send_signal(signal.SIGINT)
    status, printed, err = ended(process)
    assert (status, printed) == (130, "")
    assert err.endswith("the jobs go on; run the same command again to join them\n")
    go()
    until(lambda: (out / "smoke/voc_cls/waits/seed0.json").exists())
    assert len(lines(begun)) == 1


def test_fractions_of_gpus_are_isolated(nodes, tmp_path):
    nodes.add_second()
    command = (sys.executable, "-c", GPUS)
    for settings, names in (
        ({"num_gpus": "0"}, {"''"}),
        ({"num_gpus": "0.5"}, {"'0'", "'1'"}),
        ({"num_gpus": "2"}, {"'0,1'"}),
        ({}, {"'0'", "'1'"}),
    ):
        folder = tmp_path / str(settings)
        engine = Ray({"address": nodes.address, "num_cpus": "1", **settings}, folder)
        try:
            engine.submit([Job("first", command), Job("second", command)])
            assert engine.alive() == {"first", "second"}
            until(lambda engine=engine: not engine.alive())
            printed = {engine.log(name).read_text().strip() for name in ("first", "second")}
            assert printed <= names
        finally:
            engine.close()


def test_a_local_ray_ends_with_its_submitter(tmp_path, out, cache, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path, begun, go = waiting_method(tmp_path)
    asked = ("--methods", str(path), "--tasks", "voc_cls", "--on", "ray")
    first = submitter(*asked, out=out, cache=cache)
    until(lambda: lines(begun))
    files = next(each for each in processes(LOCAL))
    folder = Path(files.split("raylet_socket_name=")[1].split("/session_")[0])
    assert folder.exists()
    first.kill()
    first.communicate()
    until(lambda: not processes(str(folder)) and not folder.exists())
    until(lambda: held(out) == [])
    go()
    status, _, err = ended(submitter(*asked, out=out, cache=cache))
    assert status == 0, err
    assert len(lines(begun)) == 2
    assert not processes(LOCAL)


def test_no_ray_at_an_address_is_one_line(tmp_path, out, cache):
    asked = ("--methods", "random_init", "--tasks", "voc_cls", "--on", "ray")
    process = submitter(*asked, "--engine-set", "address=nowhere", out=out, cache=cache)
    status, printed, err = ended(process)
    assert (status, printed) == (2, "")
    assert err.splitlines()[-1].startswith("bench: --on ray, address=nowhere: ")
