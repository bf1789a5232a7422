"""Weights from elsewhere as methods: the specs `timm:`, `file:`, `hf:`, `hub:` and `py:`.

A spec is accepted wherever a method's name is, with a label of its own if one is given:
`mine=file:my.pth?arch=resnet50&key=teacher`. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

from bench.errors import UserError, unknown
from bench.runtime.fingerprint import digest, file_digest

TRUSTED = "trusted"  # option: code of the repository may be run
MISSING = "allow_missing"  # option: what the file lacks stays as it was drawn
VERSION = 3  # of the readers of weights: raise when the encoder of a spec may change
FORMS = {
    "timm": "timm:NAME[.TAG]",
    "file": "file:PATH?arch=NAME[&key=KEY][&prefix=PREFIX][&heads=N][&mean=R,G,B][&std=R,G,B]",
    "hf": "hf:OWNER/REPO",
    "hub": "hub:OWNER/REPO:ENTRY",
    "py": "py:PATH:FUNCTION",
}
# Files that libraries save beside weights, with the mean and deviation of the input.
SETTINGS_BESIDE = ("preprocessor_config.json", "config.json")
PROGRAMS = ("py", "hub")  # kinds whose encoder a Python program makes
OPTIONS = {
    "file": ("arch", "key", "prefix", "heads", "mean", "std", MISSING),
    "hf": ("heads", "mean", "std", "arch", "revision", "trained_on"),
    "hub": (TRUSTED,),
}
REFERENCE = "imagenet"  # imagenet@NAME labels a file with the ImageNet weights of a backbone
SPEC = re.compile(rf"(?:([^=:]*)=)?({'|'.join(FORMS)}):(.+)", re.DOTALL)
LABEL = re.compile(rf"(?:{REFERENCE}@)?[a-zA-Z0-9][\w.-]*")
NUMBER = re.compile(r"\s*[0-9.]+\s*(&.*)?")
LONGEST = 100  # characters of a label


@dataclass(frozen=True)
class Spec:
    """One spec, taken apart.

    Attributes:
        kind: `timm`, `file`, `hf`, `hub` or `py`.
        target: what follows the colon, less the options: a name, a path, a repository.
        options: key and value, as given.
        label: the method's name.
    """

    kind: str
    target: str
    options: tuple[tuple[str, str], ...]
    label: str

    def __str__(self) -> str:
        options = "&".join(f"{key}={quote(value, safe='/,:')}" for key, value in self.options)
        return f"{self.kind}:{self.target}" + (f"?{options}" if options else "")

    def having(self, **options: str) -> Spec:
        """The same spec with some options set."""
        return replace(self, options=tuple(sorted({**dict(self.options), **options}.items())))

    def option(self, key: str) -> str:
        """The value of an option; empty if it is not given."""
        return dict(self.options).get(key, "")

    @property
    def is_reference(self) -> bool:
        """Whether the label makes it the row that gaps of its backbone are measured from."""
        return self.label.startswith(f"{REFERENCE}@")

    @property
    def path(self) -> Path | None:
        """The local file that decides the weights, if there is one."""
        return Path(self.target) if self.kind == "file" else None

    @property
    def backbone(self) -> str:
        """The timm model, as far as the spec says."""
        return self.option("arch") or (self.target.split(".")[0] if self.kind == "timm" else "")

    @property
    def digest(self) -> str:
        """What identifies the weights: the spec, and a local file with the settings beside it.

        Raises:
            UserError: the file cannot be read.
        """
        return digest(
            [self.kind, self.target if self.path is None else "", self.options, *self._content()]
        )

    def _content(self) -> Iterator[str]:
        path = self.path
        if path is None:
            return
        try:
            yield file_digest(path)
            settings = [path.with_name(name) for name in SETTINGS_BESIDE]
            yield from (f"{file.name} {file_digest(file)}" for file in settings if file.is_file())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def parts(request: str) -> list[str]:
    """The parts of a comma-separated request; a mean or std of three numbers is not split."""
    found: list[str] = []
    for part in request.split(","):
        if found and NUMBER.fullmatch(part) and is_spec(found[-1]):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return [part.strip() for part in found if part.strip()]


def is_spec(text: str) -> bool:
    """Whether a part of a request is a spec rather than a name or a plug-in's file."""
    return SPEC.fullmatch(text.strip()) is not None


def parse(text: str) -> Spec:
    """Take a spec apart.

    Raises:
        UserError: it lacks a part, or has an unknown option.
    """
    match = SPEC.fullmatch(text.strip())
    assert match is not None
    label, kind, rest = match.groups()
    if label is not None and not LABEL.fullmatch(label):
        raise UserError(f"{text}: a name has letters, digits, '.', '-' and '_', as in mine={kind}:")
    target, _, query = rest.rpartition("?") if "?" in rest else (rest, "", "")
    options = []
    for item in filter(None, query.split("&")):
        key, _, value = item.partition("=")
        if key not in OPTIONS.get(kind, ()):
            raise UserError(f"{text}: {unknown('option', key, OPTIONS.get(kind, ()))}")
        value = unquote(value)
        # A tag of timm names weights; the network is the same.
        options.append((key, value.partition(".")[0] if key == "arch" else value))
    spec = Spec(kind, target, tuple(sorted(options)), label or _label(kind, target))
    if spec.is_reference:
        spec = _reference(text, spec)
    complete = {
        "file": bool(spec.option("arch")),
        "hf": re.fullmatch(r"[\w.-]+/[\w.-]+", target) is not None,
        "hub": re.fullmatch(r"[\w.-]+/[\w.:-]+:\w+", target) is not None,
        "py": re.fullmatch(r".+\.py:\w+", target) is not None,
    }
    if not target or not complete.get(kind, True):
        raise UserError(f"{text}: must be {FORMS[kind]}")
    if len(spec.label) > LONGEST:
        raise UserError(f"{text}: give it a shorter name, as in mine={spec}")
    return spec


def _reference(text: str, spec: Spec) -> Spec:
    """A spec of the ImageNet weights of a backbone, which its label names."""
    backbone = spec.label.partition("@")[2].partition(".")[0]
    is_whole = spec.label == f"{REFERENCE}@{backbone}" and spec.option("arch") in ("", backbone)
    if spec.kind != "file" or not is_whole:
        raise UserError(f"{text}: must be {REFERENCE}@{backbone}=file:PATH")
    return spec.having(arch=backbone)


def _label(kind: str, target: str) -> str:
    """The name of a row that was given none: of the file, model, repository or function."""
    last = target.rstrip("/").replace(":", "/").split("/")[-1]
    stem = Path(last).stem if kind == "file" else last
    return re.sub(r"[^\w.-]", "_", stem).strip(".-") or kind
