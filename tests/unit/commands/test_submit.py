"""What a submitter does with jobs that are alive, end, or belong to others."""

import json
from pathlib import Path

import pytest

from bench.commands import plan, submit, work
from bench.commands.request import Cell, Request
from bench.commands.submit import Submitter
from bench.results.record import Record
from bench.runtime import claims
from bench.runtime.claims import Claims
from bench.runtime.progress import Reporter

ENCODERS = [Cell("imagenet", "voc_cls", 0), Cell("random_init", "voc_cls", 0)]
NAMES = [cell.group for cell in ENCODERS]
OK = Record.model_construct(status="ok")
FAILED = Record.model_construct(status="failed", error="no luck")


class Queue:
    """An engine that says what a test says, one answer after another; the last one stays."""

    def __init__(self, *answers, log=None):
        self.answers = list(answers)
        self.jobs = []
        self.path = log

    @property
    def names(self):
        return [job.name for job in self.jobs]

    def submit(self, jobs):
        self.jobs += jobs

    def alive(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer() if callable(answer) else answer

    def log(self, name):
        return self.path


@pytest.fixture
def request_(smoke, tmp_path):
    methods = ("imagenet", "random_init")
    return Request(smoke, methods, ("voc_cls",), (0,), None, tmp_path, tmp_path / "cache", "cpu")


@pytest.fixture
def records(monkeypatch):
    """The records by cell; a test puts them there."""
    found = {}
    monkeypatch.setattr(
        submit, "Outcomes", lambda todo, request: type("", (), {"record": staticmethod(found.get)})
    )
    monkeypatch.setattr(submit, "LIST", 0.0)
    monkeypatch.setattr(submit, "WATCH", 0.01)
    return found


@pytest.fixture
def computed(request_, records, capfd):
    """Have both encoders computed by an engine; what was announced, and what was said."""

    def call(engine):
        announced = []
        submitter = Submitter(request_, ("--threads", "2"), engine, Reporter())
        submitter.compute(ENCODERS, lambda cell, record: announced.append(cell.group))
        return submitter, announced, capfd.readouterr().err

    return call


def recorded(records, *cells, record=OK):
    """An answer of an engine: nothing is alive any more, and cells have their records."""

    def answer():
        records.update(dict.fromkeys(cells, record))
        return set()

    return answer


def test_every_encoder_is_submitted_once(computed, records, request_):
    engine = Queue(set(), {*NAMES}, {NAMES[1]}, recorded(records, *ENCODERS))
    submitter, announced, said = computed(engine)
    assert engine.names == announced == NAMES
    assert submitter.given_up == []
    assert "2 jobs submitted" in said
    *command, option, file = engine.jobs[1].command
    assert command == [*submit.WORKER, "--threads", "2"]
    assert option == "--cells"
    cells = plan.cells(request_)
    assert work.of_file(cells, request_.folder / file, request_) == [ENCODERS[1]]


def test_what_others_compute_is_not_submitted(computed, records, request_):
    other = Claims(request_.folder / claims.FOLDER, 600, lambda name: None, lambda name: None)
    assert other.take(NAMES[0])
    engine = Queue({NAMES[1]}, {NAMES[1]}, recorded(records, *ENCODERS))
    _, announced, said = computed(engine)
    assert engine.names == []
    assert announced == NAMES
    assert "2 jobs queued or running already" in said


def test_a_job_that_always_ends_is_given_up_with_its_last_lines(computed, records, tmp_path):
    log = tmp_path / "job.log"
    log.write_text("one\ntwo\n\nthree\nbench: no such device\n")
    engine = Queue(set(), recorded(records, ENCODERS[0]), set(), log=log)
    submitter, announced, said = computed(engine)
    assert engine.names.count(NAMES[1]) == submit.SUBMISSIONS == 3
    assert engine.names.count(NAMES[0]) == 1
    assert announced == [NAMES[0]]
    assert submitter.given_up == [NAMES[1]]
    assert "random_init-seed0: its job ended without a record; submitted again (3 of 3)" in said
    last = "two | three | bench: no such device"
    assert f"its job ended 3 times without a record: {last}; log: {log}\n" in said


def test_a_record_that_shows_late_is_waited_for(computed, records):
    engine = Queue(set(), set(), recorded(records, *ENCODERS))
    _, announced, said = computed(engine)
    assert engine.names == announced == NAMES
    assert "without a record" not in said


def test_a_failed_cell_stops_nothing(computed, records):
    failed = recorded(records, ENCODERS[0], record=FAILED)
    engine = Queue(set(), failed, {NAMES[1]}, recorded(records, ENCODERS[1]))
    submitter, announced, said = computed(engine)
    assert announced == NAMES
    assert "imagenet x voc_cls, seed 0: FAILED: no luck" in said
    assert submitter.given_up == []


def test_the_claim_of_a_killed_worker_is_waited_for(computed, records, request_):
    other = Claims(request_.folder / claims.FOLDER, 600, lambda name: None, lambda name: None)

    def killed():
        other.take(NAMES[0])
        return {NAMES[1]}

    def old():
        other.release(NAMES[0])
        return {NAMES[1]}

    last = recorded(records, *ENCODERS)
    engine = Queue(set(), killed, {NAMES[1]}, old, {NAMES[1]}, {*NAMES}, last)
    _, _, said = computed(engine)
    assert engine.names == [*NAMES, NAMES[0]]
    assert said.count("imagenet-seed0: its job ended, but its worker's claim is not old yet") == 1


def test_one_submitter_at_a_time_submits(computed, records, request_, monkeypatch):
    folder = request_.folder / submit.FOLDER
    other = Claims(folder, 600, lambda name: None, lambda name: None)
    assert other.take("submission")
    engine = Queue(set())
    pauses = []

    def pause(seconds):
        pauses.append(list(engine.names))
        if len(pauses) == 5:
            other.release("submission")
        if engine.names:
            records.update(dict.fromkeys(ENCODERS, OK))

    monkeypatch.setattr(submit.time, "sleep", pause)
    computed(engine)
    assert pauses[:5] == 5 * [[]]
    assert engine.names == NAMES


def test_a_plan_of_a_job_stays_when_another_one_is_made(request_, records):
    submitter = Submitter(request_, (), Queue(set()), Reporter())
    files = [submitter._job(NAMES[0], cells).command[-1] for cells in (ENCODERS[:1], ENCODERS)]
    assert [len(json.loads(Path(file).read_text())["cells"]) for file in files] == [1, 2]
