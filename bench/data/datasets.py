"""The image sets of a run, opened and checked once, before anything is computed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import filelock

from bench.config.schema import Scenes, Suite
from bench.data import synthetic_objects, synthetic_scenes
from bench.data.image_folder import LabeledImages, open_image_folder
from bench.data.voc import Voc, open_voc
from bench.data.voc_masks import Masks, open_masks
from bench.errors import UserError
from bench.runtime.fingerprint import code_digest, digest
from bench.runtime.progress import Reporter


@dataclass(frozen=True)
class Data:
    """The image sets that a run needs; None is one that it does not."""

    corpus: LabeledImages | None
    voc: Voc | None
    masks: Masks | None = None

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each image set, by the name that records give it."""
        found = {"corpus": self.corpus.fingerprint} if self.corpus else {}
        if self.voc:
            found |= {
                "voc_train": self.voc.train.fingerprint,
                "voc_test": self.voc.test.fingerprint,
            }
        if self.masks:
            found |= {
                "masks_train": self.masks.train.fingerprint,
                "masks_test": self.masks.test.fingerprint,
            }
        return found

    def sizes(self) -> dict[str, int]:
        """How many images each image set holds, by the same names."""
        found = {"corpus": len(self.corpus.images.files)} if self.corpus else {}
        for kind, lists in (("voc", self.voc), ("masks", self.masks)):
            if lists:
                found |= {
                    f"{kind}_train": len(lists.train.ids),
                    f"{kind}_test": len(lists.test.ids),
                }
        return found


def open_data(
    suite: Suite, root: Path | None, reads: AbstractSet[str], cache: Path, reporter: Reporter
) -> Data:
    """Open what a run reads.

    Args:
        suite: says where everything lies below the data root.
        root: the data root; None for a suite that renders its own.
        reads: any of `corpus`, `voc` and `masks`.
        cache: where rendered images are kept.
        reporter: where progress is shown.

    Raises:
        UserError: something is missing, empty or damaged.
    """
    if suite.scenes is not None:
        if root is not None:
            raise UserError(f"suite {suite.name} renders its own images: leave out --data-root")
        root = rendered(suite.scenes, cache, reporter)
    elif root is None:
        raise UserError(f"suite {suite.name} needs images: say where with --data-root DIR")
    elif not root.is_dir():
        raise UserError(f"--data-root {root}: no such folder")
    elif not any(root.iterdir()):
        raise UserError(f"--data-root {root}: the folder is empty")
    return Data(
        corpus=open_image_folder(root / suite.corpus.folder, suite.corpus.damaged, reporter)
        if "corpus" in reads
        else None,
        voc=open_voc(root, suite.voc, reporter) if "voc" in reads else None,
        masks=open_masks(root, suite.voc, suite.voc_seg, reporter)
        if "masks" in reads and suite.voc_seg
        else None,
    )


def rendered(settings: Scenes, cache: Path, reporter: Reporter) -> Path:
    """The data root of rendered scenes, from the cache or rendered into it."""
    code = code_digest([Path(synthetic_objects.__file__), Path(synthetic_scenes.__file__)])
    key = digest([settings.model_dump(), synthetic_objects.VERSION, code])
    root = cache / "scenes" / key[:24]
    root.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root.with_suffix(".lock")):
        if not root.exists():
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=root.parent))
            total = settings.corpus + settings.train + settings.test
            try:
                with reporter.stage("rendering scenes", total) as bar:
                    synthetic_scenes.render(partial, **settings.model_dump(), advance=bar.advance)
                partial.replace(root)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return root
