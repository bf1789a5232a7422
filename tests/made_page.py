"""Made-up records of two tasks and their page, for the tests of the page."""

import shutil
from pathlib import Path

from made_up import FAILED, TUNED, TUNING, calibrate, encoder, save

from bench.encoders.pretraining import LossCurve, Pretraining
from bench.reporting import leaderboard, publish

PAGE = "made/leaderboard.html"
IMAGE = Path(__file__).parents[1] / "results/reference/mini/voc_cls/jigsaw/samples.png"
EVIL = "<img src=x onerror=alert(1)>&\"' [click](evil.html)"
QUALITIES = {"imagenet": 2.0, "rotation": 0.8, "jig_saw": 0.7, "random_init": 0.2}

STEPS = [8 * (k + 1) for k in range(200)]
LOSSES = {
    "rotation": {"loss": [1.4 / (1 + k / 50) for k in range(200)]},
    "jig_saw": {
        "loss_generator": [9.0 - 0.04 * k + (k % 7) / 5 for k in range(200)],
        "loss_discriminator": [0.7 for _ in range(200)],
    },
}


def made(folder):
    """Two tasks, one with stages and samples, one fine-tuned with predictions shown; a failure.

    A calibration is of the first task alone: nothing is known of training runs in the second.
    """
    for place, (method, quality) in enumerate(QUALITIES.items()):
        seen = 0 if method in ("imagenet", "random_init") else 100 * (place + 1)
        network = encoder("rgb").model_copy(update={"parameters": 9 - place})
        curve = LOSSES.get(method) and LossCurve(STEPS, LOSSES[method])
        learned = Pretraining(views_seen=seen, seconds=seen * 2.0, loss_curve=curve)
        facts = {"pretraining": learned, "encoder": network}
        stages = {"per_stage": [10.0 + place, 20.0, 15.0]}
        stages["diagnostics"] = {"optimism": 0.5 - place}
        image = {"samples": "samples.png"} if method == "rotation" else {}
        save(folder, method, quality, **stages, **image, **facts)
        save(
            folder,
            method,
            quality / 2,
            task="voc_det",
            task_settings=TUNING,
            predictions_image="predictions.png",
            **TUNED,
            **facts,
        )
        for task, name in (("voc_det", "predictions"), ("voc_cls", "samples")):
            shutil.copy(IMAGE, folder / "made" / task / method / f"{name}.png")
    calibrate(folder, moves=(0, 3, -3), tasks={"voc_cls"})
    save(folder, "broken", 0, error=f"RuntimeError: {EVIL}", **FAILED)
    found = leaderboard.load(folder / "made")
    publish.write(found, folder / "made")
    return found
