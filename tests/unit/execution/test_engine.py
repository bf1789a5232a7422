"""Engines by name, and their settings."""

import subprocess
import sys

import pytest

from bench.errors import UserError
from bench.execution.engine import Job, open_engine, parse_settings
from bench.execution.slurm import Slurm


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ([], {}),
        (["time=60,gpus=1"], {"time": "60", "gpus": "1"}),
        (["time=1-00:00:00", "gpus=a100:1"], {"time": "1-00:00:00", "gpus": "a100:1"}),
        (["partition=short,long,gpus=1"], {"partition": "short,long", "gpus": "1"}),
        (["constraint=a=b"], {"constraint": "a=b"}),
    ],
)
def test_settings_are_keys_and_values(given, settings):
    assert parse_settings(given) == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["time"], "--engine-set time: write key=value[,key=value]"),
        (["=5"], "--engine-set =5: write key=value[,key=value]"),
        (["time=5", "time=6"], "--engine-set time: is given twice"),
    ],
)
def test_other_texts_are_refused(given, message):
    with pytest.raises(UserError) as refused:
        parse_settings(given)
    assert str(refused.value) == message


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with programs of a test's own."""
    pytest.importorskip("submitit")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(**contents):
        for name, content in contents.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{content}\n")
            path.chmod(0o755)

    write(sbatch="echo Submitted batch job 7", srun="", squeue="")
    return write


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("slurn", {}, "unknown engine 'slurn': did you mean slurm?"),
        ("slurm", {"times": "5"}, "--engine-set times: slurm has partition, time, gpus, cpus, "),
        ("slurm", {"time": "soon"}, "--engine-set time=soon: write minutes, or D-HH:MM:SS"),
        ("slurm", {"gpus": "0"}, "--engine-set gpus=0: write 1, or TYPE:1, as a job computes on"),
        ("slurm", {"gpus": "a100:2"}, "--engine-set gpus=a100:2: write 1, or TYPE:1, as a job"),
        ("slurm", {"mem": "much"}, "--engine-set mem=much: write a size such as 32G"),
        ("slurm", {"partition": "a b"}, "--engine-set partition=a b: write a name"),
        ("slurm", {"partition": ""}, "--engine-set partition: has no value"),
    ],
)
def test_a_wrong_engine_or_setting_is_one_line(programs, tmp_path, name, settings, message):
    with pytest.raises(UserError) as refused:
        open_engine(name, settings, tmp_path)
    assert str(refused.value).startswith(message)


def test_a_machine_without_slurm_is_said(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--on slurm: there is no sbatch here"):
        open_engine("slurm", {}, tmp_path)


def test_a_machine_without_submitit_is_told_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-gap\[slurm\]'"):
        open_engine("slurm", {}, tmp_path)


def test_settings_reach_sbatch_and_defaults_are_the_cluster_s(programs, tmp_path):
    settings = {"partition": "a,b", "time": "1-00:00:00", "gpus": "a100:1", "cpus": "8"}
    settings |= {"mem": "32G", "account": "me", "qos": "high", "constraint": "a100"}
    engine = Slurm(settings | {"signal": "60", "max_jobs": "3"}, tmp_path / "all")
    engine.submit([Job("one", ("true",)), Job("two", ("true",))])
    script = next((tmp_path / "all").rglob("*submission*.sh")).read_text()
    expected = "partition=a,b time=1-00:00:00 gpus-per-node=a100:1 cpus-per-task=8 mem=32G"
    for option in f"{expected} account=me qos=high constraint=a100 signal=USR2@60 requeue".split():
        assert f"#SBATCH --{option}\n" in script
    assert "#SBATCH --array=0-1%2\n" in script
    assert "--cpus-per-task 8 " in script.partition("# command")[2]
    Slurm({}, tmp_path / "none").submit([Job("one", ("true",))])
    script = next((tmp_path / "none").rglob("*submission*.sh")).read_text()
    for option in ("time", "partition", "mem", "wckey", "cpus-per-task"):
        assert f"--{option}" not in script


def test_a_refusal_of_sbatch_is_one_line(programs, tmp_path):
    programs(sbatch="echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(UserError, match=r"^sbatch: error: invalid partition specified: x$"):
        Slurm({}, tmp_path).submit([Job("one", ("true",))])


def test_the_queue_says_which_jobs_of_the_folder_are_alive(programs, tmp_path):
    engine = Slurm({}, tmp_path / "here")
    assert engine.alive() == set()
    engine.submit([Job("one", ("true",)), Job("two", ("true",))])
    engine.submit([Job("three", ("true",))])
    lines = ["someone_else N/A", "ssl-gap-000000000000 0"]
    for names in (tmp_path / "here").glob("*/names.json"):
        index = "1" if "two" in names.read_text() else "N/A"
        lines.append(f"ssl-gap-{names.parent.name} {index}")
    programs(squeue=f"printf '{chr(10).join(lines)}\n'")
    assert engine.alive() == {"two", "three"}
    assert Slurm({}, tmp_path / "here").alive() == {"two", "three"}, "of another submitter"
    assert Slurm({}, tmp_path / "elsewhere").alive() == set()


def test_where_the_queue_does_not_answer_nothing_is_known_to_have_ended(programs, tmp_path):
    engine = Slurm({}, tmp_path / "here")
    programs(squeue="echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    with pytest.raises(UserError, match="squeue: slurm_load_jobs error: Unable to contact"):
        engine.alive()
    programs(squeue="")
    assert engine.alive() == set()
    engine.submit([Job("one", ("true",))])
    programs(squeue="exit 1")
    assert engine.alive() == {"one"}


def test_the_newest_log_of_a_job(programs, tmp_path):
    engine = Slurm({}, tmp_path / "here")
    engine.submit([Job("one", ("true",)), Job("two", ("true",))])
    assert engine.log("two") is None
    folder = next((tmp_path / "here").glob("*/names.json")).parent
    for index in (0, 1):
        (folder / f"7_{index}_0_log.err").touch()
    assert engine.log("two") == folder / "7_1_0_log.err"
    assert engine.log("three") is None


TOLD = "import os, signal, sys; os.kill(os.getppid(), signal.SIGUSR2); sys.exit({})"


@pytest.mark.parametrize(
    ("worker", "restarts", "queued_again"),
    [
        (TOLD.format(75), "", True),  # its time was over
        ("import sys; sys.exit(75)", "", False),  # others have its cells
        (TOLD.format(1), "", False),  # it was done when its time was over
        (TOLD.format(75), "100", False),
    ],
)
def test_a_job_is_queued_again_only_when_its_time_was_over(
    programs, tmp_path, monkeypatch, worker, restarts, queued_again
):
    programs(scontrol=f"echo $@ > {tmp_path}/scontrol")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts or "0")
    command = [sys.executable, "-c", worker]
    code = f"from bench.execution.slurm import _work; _work({command!r})"
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == (1 if "exit(1)" in worker else 75)
    scontrol = tmp_path / "scontrol"
    assert scontrol.exists() == queued_again
    if queued_again:
        assert scontrol.read_text() == "requeue 7_3\n"
