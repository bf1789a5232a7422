"""`bench leaderboard`: render the leaderboards of a folder from its records. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bench.errors import UserError
from bench.reporting import index, leaderboard, publish
from bench.results import storage


def suite_folders(out: Path, named: str) -> list[Path]:
    """The folders of suites that have records.

    Args:
        out: the folder above them.
        named: how messages name it.

    Raises:
        UserError: there are none.
    """
    folders = sorted({path.parents[2] for path in storage.files(out, storage.IN_OUT)})
    if not folders:
        inside = bool(storage.files(out))
        hint = f"name the folder above, {out.parent}" if inside else "make some with bench run"
        raise UserError(f"{named}: has no records of suites; {hint}")
    return folders


def leaderboards(out: Path, cache: Path, check: bool, warn: Callable[[str], None]) -> Iterator[str]:
    """Render every suite below a folder and the page over them, or only say whether one is stale.

    Args:
        out: has SUITE/TASK/METHOD/seedK.json.
        cache: folder for what can be computed again.
        check: whether to write nothing.
        warn: takes a line for each record that is left out.

    Yields:
        The path of each leaderboard, and that of the page over them.

    Raises:
        UserError: there are no records, or those of a suite belong in no table; or, with `check`,
            a leaderboard is stale.
    """
    refused: list[UserError] = []
    rendered: list[leaderboard.Leaderboard] = []
    for folder in suite_folders(out, f"--out {out}"):
        try:
            loaded = leaderboard.load(folder, None if check and not cache.is_dir() else cache)
        except UserError as error:  # the other suites are rendered
            refused.append(error)
            continue
        for problem in loaded.problems:
            warn(str(problem))
        rendered.append(loaded)
        if not check:
            publish.render(loaded, folder, warn)
            yield str(folder / "LEADERBOARD.md")
            continue
        files = publish.stale(loaded, folder)
        if files:
            names = ", ".join(files)
            raise UserError(f"{folder}: stale: {names}; run bench leaderboard --out {out}")
    if not check:
        yield str(index.write(rendered, out))
    elif not refused and index.stale(rendered, out):
        raise UserError(f"{out}: stale: {index.PAGE}; run bench leaderboard --out {out}")
    for earlier in refused[:-1]:
        warn(str(earlier))
    if refused:
        raise refused[-1]
