"""Changes between two records of one cell, and what `bench check` says of them."""

from dataclasses import replace

import pytest
from made_up import save

from bench.commands.request import Cell
from bench.commands.verdict import Verdict, messages
from bench.encoders.pretraining import LearningRates, Pretraining, TrainingTrace
from bench.results.changes import Change, method_changes, task_changes, version_changes
from bench.results.record import HyperparameterFacts

METHOD = "methods/rotation.py"
TASK = "tasks/voc_cls.py"
TRACE = TrainingTrace(
    order=[3, 1, 2, 0],
    pixels=[[110.0, 60.0], [112.0, 61.0]],
    learning_rates=LearningRates(first=1e-3, last=1e-5, maximum=1e-3, sha256="a" * 64),
    views=192,
    losses={"loss": [1.386, 1.380, 1.371], "other": [0.0, 0.1, 0.2]},
    descents={"loss": [-30.0, -25.0, -20.0], "other": [-4.0, 0.0, -3.0]},
    updates={"loss": 12, "other": 12},
    optimizers={"loss": "AdamW of 12 weights with eps 1e-08", "other": "SGD of 3 weights"},
)


@pytest.fixture
def before(tmp_path):
    """A record whose encoder and whose network were trained."""
    entry = save(tmp_path, "rotation", 0.8)
    history = Pretraining(views_seen=192, trace=TRACE)
    return entry.model_copy(update={"pretraining": history, "training": TRACE})


def losses(name, *values):
    return {"losses": TRACE.losses | {name: list(values)}}


def rates(**changes):
    return {"learning_rates": replace(TRACE.learning_rates, **changes)}


FAULTS = {
    "half the budget": ({"views": 96}, "views", "changed from 192 to 96"),
    "another seed in the loader": (
        {"order": [0, 2, 1, 3]},
        "order of the images",
        "the first batches have other images, or others first",
    ),
    "images read in another order": (
        {"pixels": [[112.0, 61.0], [110.0, 60.0]]},
        "pixels",
        "mean and standard deviation of batch 0 changed from [110.0, 60.0] to [112.0, 61.0]",
    ),
    "crops at another scale": (
        {"pixels": [[110.0, 60.0], [112.0, 59.5]]},
        "pixels",
        "mean and standard deviation of batch 1 changed from [112.0, 61.0] to [112.0, 59.5]",
    ),
    "another number of image tensors": (
        {"pixels": [[110.0, 60.0, 110.0, 60.0], [112.0, 61.0]]},
        "pixels",
        "mean and standard deviation of batch 0 changed from [110.0, 60.0] to "
        "[110.0, 60.0, 110.0, 60.0]",
    ),
    "a schedule off by one": (
        rates(last=2e-5, sha256="b" * 64),
        "learning rates",
        "first, largest and last changed from 0.001, 0.001, 1e-05 to 0.001, 0.001, 2e-05",
    ),
    "a milestone off by one": (
        rates(sha256="b" * 64),
        "learning rates",
        "the rate of some step changed, not the first, the largest or the last",
    ),
    "another sum of losses": (
        losses("loss", 1.386, 1.401, 1.371),
        "losses",
        "loss of step 1 changed from 1.38 to 1.401",
    ),
    "a loss that is no longer 0": (
        losses("other", 0.001, 0.1, 0.2),
        "losses",
        "other of step 0 changed from 0 to 0.001",
    ),
    "fewer steps": (losses("loss", 1.386), "losses", "loss has 1 steps, not 3"),
    "steps that ascend": (
        {"descents": TRACE.descents | {"loss": [30.0, 25.0, 20.0]}},
        "descents",
        "loss of step 0 changed from -30 to 30",
    ),
    "a step that is not taken": (
        {"descents": TRACE.descents | {"other": [-4.0, 0.0, 0.0]}},
        "descents",
        "other of step 2 changed from -3 to 0",
    ),
    "steps that stop": (
        {"updates": TRACE.updates | {"other": 10}},
        "updates",
        "10 steps of other changed the weights, not 12",
    ),
    "another optimizer": (
        {"optimizers": TRACE.optimizers | {"loss": "AdamW of 12 weights with eps 1e-05"}},
        "optimizer",
        "that of loss changed from AdamW of 12 weights with eps 1e-08 to "
        "AdamW of 12 weights with eps 1e-05",
    ),
    "another objective": (
        {"losses": {"loss": TRACE.losses["loss"]}},
        "names of the losses",
        "changed from loss, other to loss",
    ),
}


@pytest.mark.parametrize(("changes", "what", "text"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_training_names_plugin_and_number(before, changes, what, text):
    trace = replace(TRACE, **changes)
    trained = before.model_copy(update={"pretraining": Pretraining(views_seen=192, trace=trace)})
    assert list(method_changes(before, trained, METHOD)) == [Change(METHOD, what, text)]
    assert not list(task_changes(before, trained, TASK))
    tuned = before.model_copy(update={"training": trace})
    assert list(task_changes(before, tuned, TASK)) == [Change(TASK, what, text)]
    assert not list(method_changes(before, tuned, METHOD))


def test_a_reference_without_descents_allows_any(before):
    """Records of earlier versions have none."""
    old = Pretraining(views_seen=192, trace=replace(TRACE, descents={}, updates={}, optimizers={}))
    reference = before.model_copy(update={"pretraining": old})
    assert not list(method_changes(reference, before, METHOD))
    assert {change.what for change in method_changes(before, reference, METHOD)} == {
        "descents",
        "updates",
        "optimizer",
    }


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_a_loss_may_differ_by_twice_as_much_at_each_next_step(before, step, factor):
    for share, changes in ((0.9, 0), (1.1, 1)):
        losses = list(TRACE.losses["loss"])
        losses[step] *= 1 + share * factor * 1e-3
        trace = replace(TRACE, losses=TRACE.losses | {"loss": losses})
        after = before.model_copy(
            update={"pretraining": Pretraining(views_seen=192, trace=trace), "training": TRACE}
        )
        assert len(list(method_changes(before, after, METHOD))) == changes


def test_rounding_is_no_change(before):
    trace = replace(
        TRACE,
        pixels=[[110.0001, 60.0], [112.0, 60.9999]],
        losses={"loss": [1.3861, 1.3809, 1.3701], "other": [1e-6, 0.10005, 0.2001]},
        descents={"loss": [-30.1, -24.9, -20.1], "other": [-4.01, 5e-5, -3.0]},
        updates={"loss": 11, "other": 12},
    )
    after = before.model_copy(
        update={
            "pretraining": Pretraining(views_seen=192, trace=trace),
            "training": trace,
            "created": "later",
        }
    )
    assert not list(method_changes(before, after, METHOD))
    assert not list(task_changes(before, after, TASK))
    assert not list(version_changes(before, after, METHOD, TASK))


def test_what_is_trained_no_longer_or_newly_is_a_change(before):
    frozen = before.model_copy(
        update={"pretraining": Pretraining(views_seen=192), "training": None}
    )
    (change,) = method_changes(before, frozen, METHOD)
    assert change == Change(METHOD, "training", "is no longer trained")
    (change,) = task_changes(frozen, before, TASK)
    assert change == Change(TASK, "training", "is trained now")


@pytest.mark.parametrize(
    ("field", "value", "change"),
    [
        ("data", {"voc_test": "e" * 64}, "data: changed from {'voc_test': 'ddd"),
        (
            "num_images",
            {"voc_test": 119},
            "number of images: changed from {'voc_test': 120} to {'voc_test': 119}",
        ),
        (
            "hyperparameters",
            HyperparameterFacts(num_settings=5),
            "settings tried: changed from 10 to 5",
        ),
        (
            "per_class",
            {"ape": 1.0, "bee": 1.0},
            "classes: changed from ['ape', 'bee', 'cat'] to ['ape', 'bee']",
        ),
    ],
)
def test_facts_of_a_task_are_equal(before, field, value, change):
    after = before.model_copy(update={field: value})
    (difference,) = task_changes(before, after, TASK)
    assert f"{difference.what}: {difference.text}".startswith(change)
    assert not list(method_changes(before, after, METHOD))


def test_facts_of_a_method_are_equal(before):
    inputs = before.encoder.model_copy(update={"inputs": ["L", "ab"], "parameters": 2})
    changes = method_changes(before, before.model_copy(update={"encoder": inputs}), METHOD)
    assert [f"{change.what}: {change.text}" for change in changes] == [
        "inputs: changed from ['rgb'] to ['L', 'ab']",
        "parameters: changed from 1 to 2",
    ]


def test_weights_from_a_file_are_equal_and_trained_ones_may_round(before, tmp_path):
    other = before.encoder.model_copy(update={"weights_sha256": "f" * 64})
    assert not list(method_changes(before, before.model_copy(update={"encoder": other}), METHOD))
    loaded = save(tmp_path, "imagenet", 2.0)
    after = loaded.model_copy(update={"encoder": other})
    (change,) = method_changes(loaded, after, "methods/imagenet.py")
    assert change.what == "weights"


def test_a_raised_version_asks_for_a_new_reference(before):
    after = before.model_copy(update={"method_version": 2, "task_version": 3})
    changes = list(version_changes(before, after, METHOD, TASK))
    assert [(change.plugin, change.text) for change in changes] == [
        (METHOD, "version 1 to 2: make a new reference"),
        (TASK, "version 1 to 3: make a new reference"),
    ]
    assert all(change.hint == "bench run ... --out ... makes one" for change in changes)


def verdict(method, *changes, task="voc_cls", trained=(), processes=1):
    cell = Cell(method, task, 0)
    own = frozenset(trained) or frozenset({f"methods/{method}.py"})
    return Verdict("smoke", cell, processes, 1.0, 1.0, changes=changes, trained=own)


def test_a_change_of_one_plugin_names_it_and_its_version():
    change = Change(METHOD, "losses", "loss of step 3 changed from 1.386 to 1.401")
    rows = [verdict("rotation", change), verdict("rotation", change, task="voc_seg")]
    rows += [verdict("jigsaw"), verdict("bigan")]
    assert list(messages(rows)) == [
        "methods/rotation.py: losses: loss of step 3 changed from 1.386 to 1.401 "
        "(smoke: rotation x voc_cls, seed 0 and 1 more): raise `version` in methods/rotation.py, "
        "or undo the change"
    ]


def test_a_change_of_every_method_is_the_harness():
    names = ("rotation", "jigsaw", "bigan")
    text = "changed from 192 to 96"
    rows = [verdict(name, Change(f"methods/{name}.py", "views", text)) for name in names]
    assert list(messages(rows)) == [
        "views: changed in all 3 plug-ins, so it is the harness, not one of them "
        "(methods/rotation.py: changed from 192 to 96): undo the change, or raise the version of "
        "each"
    ]
    untouched = [*rows, verdict("autoencoder")]
    assert len(list(messages(untouched))) == 3, "one is not trained so: each is named"
    assert len(list(messages(rows[:2]))) == 2, "two may be alike by chance"


def test_a_change_of_every_task_that_trains_is_the_harness():
    names = ("voc_det", "voc_seg", "voc_cls_finetune")
    rows = []
    for name in names:
        task = f"tasks/{name}.py"
        change = Change(task, "views", "half")
        rows.append(verdict("rotation", change, task=name, trained=(METHOD, task)))
    (message,) = messages(rows)
    assert message.startswith("views: changed in all 3 plug-ins, so it is the harness")


def test_scores_that_change_everywhere_are_named_one_by_one():
    names = ("rotation", "jigsaw", "bigan")
    change = {name: Change(f"methods/{name}.py or {TASK}", "score", "by +9") for name in names}
    lines = list(messages([verdict(name, change[name]) for name in names]))
    assert len(lines) == 3
    hint = f"raise `version` in {METHOD} or {TASK}, or undo the change"
    assert lines[0].endswith(hint)
