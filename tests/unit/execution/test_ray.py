"""Settings and messages of the Ray engine; no Ray is started."""

import importlib.util
import multiprocessing
import tempfile

import pytest

from bench.errors import UserError
from bench.execution import ray
from bench.execution.ray import Ray, RaySettings, check_needs, needs


def test_an_address_is_given_or_in_the_environment_or_local():
    variables = {"RAY_ADDRESS": "head:6379"}
    assert RaySettings.parse({"address": "auto"}, variables).address == "auto"
    assert RaySettings.parse({}, variables).address == "head:6379"
    assert RaySettings.parse({}, {}).is_local
    assert RaySettings.parse({"address": "local"}, variables).is_local


def test_settings_are_numbers():
    given = {"num_cpus": "4", "num_gpus": "0.5", "memory": "7.5"}
    assert RaySettings.parse(given, {}) == RaySettings("local", 4, 0.5, 7.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "x"}, "partition: ray has address, num_cpus, num_gpus, memory"),
        ({"num_cpus": ""}, "num_cpus: has no value"),
        ({"num_cpus": "0"}, "num_cpus=0: write a whole number"),
        ({"num_cpus": "1.5"}, "num_cpus=1.5: write a whole number"),
        ({"num_gpus": "half"}, "num_gpus=half: write a whole number, or a fraction of one"),
        ({"num_gpus": "-1"}, "num_gpus=-1: write a whole number, or a fraction of one"),
        ({"num_gpus": "1.5"}, "num_gpus=1.5: write a whole number, or a fraction of one"),
        ({"memory": "inf"}, "memory=inf: write a number of GB"),
        ({"memory": "8GB"}, "memory=8GB: write a number of GB"),
    ],
)
def test_a_wrong_setting_is_one_line(settings, message):
    with pytest.raises(UserError) as raised:
        RaySettings.parse(settings, {})
    assert str(raised.value) == f"--engine-set {message}"


@pytest.mark.parametrize("place", ["setting", "variable"])
def test_addresses_of_a_ray_client_are_refused(place):
    address = "ray://head:10001"
    with pytest.raises(UserError, match=f"address {address}: write HOST:PORT of the cluster's"):
        if place == "setting":
            RaySettings.parse({"address": address}, {})
        else:
            RaySettings.parse({}, {"RAY_ADDRESS": address})


def asked(nodes, **settings):
    return needs(RaySettings("head:1", **settings), nodes)


def test_a_job_has_a_gpu_where_there_are_any():
    assert asked([{"CPU": 8.0}]) == {"num_cpus": 1, "num_gpus": 0.0}
    assert asked([{"CPU": 8.0}, {"CPU": 64.0, "GPU": 8.0}])["num_gpus"] == 1.0
    assert asked([{"CPU": 64.0, "GPU": 8.0}], num_gpus=0.0) == {"num_cpus": 1, "num_gpus": 0.0}


def test_a_job_has_its_share_of_the_cores_of_its_gpu():
    nodes = [{"CPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}, {"CPU": 48.0, "GPU": 4.0}]
    assert asked(nodes)["num_cpus"] == 8
    assert asked(nodes, num_gpus=0.5)["num_cpus"] == 4
    assert asked(nodes, num_gpus=2.0)["num_cpus"] == 16
    assert asked(nodes, num_gpus=0.01)["num_cpus"] == 1
    assert asked(nodes, num_cpus=3)["num_cpus"] == 3
    assert asked([{"GPU": 1.0}])["num_cpus"] == 1


def test_memory_is_in_gigabytes():
    assert asked([{"CPU": 1.0}], memory=1.5)["memory"] == 1_500_000_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_gpus": 0.5}, "--engine-set num_gpus=0.5: this machine has 0"),
        ({"num_cpus": 3}, "--engine-set num_cpus=3: this machine has 2"),
        ({"memory": 16.0}, "--engine-set memory=16: this machine has 8"),
    ],
)
def test_what_a_machine_can_never_run_is_refused(settings, message):
    machine = {"CPU": 2.0, "memory": 8e9}
    check_needs(asked([machine]), machine)
    with pytest.raises(UserError, match=message):
        check_needs(asked([machine], **settings), machine)


def test_without_ray_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Ray; install it with pip install 'ssl-gap\[ray\]'"):
        Ray({}, tmp_path / "jobs")
    assert not (tmp_path / "jobs").exists()


def test_a_temporary_folder_has_to_be_short_enough_for_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/a/folder/with/a/name")
    with pytest.raises(UserError, match=r"is too long for the sockets of Ray .* set TMPDIR=/tmp"):
        Ray({}, tmp_path)


class Silent:
    """The process that talks to Ray, which says nothing, or has ended."""

    def __init__(self, context, ended):
        self.context = context
        self.ended = ended
        self.killed = False

    def __call__(self, target, args, daemon):
        if not self.ended:
            self.pipe = args[0]
            self.copy = multiprocessing.reduction.DupFd(args[0].fileno())
        return self

    def start(self):
        self.kept = None if self.ended else self.copy.detach()

    def join(self, seconds=None):
        pass

    def kill(self):
        self.killed = True


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (False, "--on ray, address=head:6379: Ray did not answer within 0 s"),
        (True, "--on ray, address=head:6379: Ray ended; run the same command again to resume"),
    ],
)
def test_a_ray_that_says_nothing_is_one_line(tmp_path, monkeypatch, ended, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(ray, "CONNECT_SECONDS", 0.1)
    context = multiprocessing.get_context("spawn")
    silent = Silent(context, ended)
    monkeypatch.setattr(type(context), "Process", silent)
    with pytest.raises(UserError) as raised:
        Ray({"address": "head:6379"}, tmp_path)
    assert str(raised.value) == message
    assert silent.killed
