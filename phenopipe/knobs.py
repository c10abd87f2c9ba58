"""Knobs: the typed settings of one step, to the command line and back.

A step is a command. Its rule hands it files (``--embeddings FILE``), names (``--experiment
NAME``, the rule's wildcards) and knobs (``--null-draws 1000``); this module writes and
reads all three, and runs the command so that a user's mistake ends in one line.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from phenopipe import __version__
from phenopipe.errors import UserError
from phenopipe.formats.fingerprint import fingerprint, size

T = TypeVar("T")


def once(values: tuple[T, ...]) -> tuple[T, ...]:
    """Return a list as it is, unless it holds something twice.

    Examples
    --------
    >>> once(("a", "b", "a"))
    Traceback (most recent call last):
    ValueError: 'a' is listed twice, wanted once
    """
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is listed twice, wanted once")
    return values


Unique = Annotated[tuple[T, ...], AfterValidator(once)]


class Knobs(BaseModel):
    """Settings of one step. The docstring under a field becomes its ``--help``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def expanded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write out what one setting stands for, if it stands for others."""
        return dict(settings)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, settings: Any) -> Any:  # noqa: ANN401 - whatever the user gave
        return cls.expanded(settings) if isinstance(settings, Mapping) else settings

    @classmethod
    def merged(cls, *layers: Mapping[str, Any]) -> Self:
        """Check settings from several places; what a later one sets goes first."""
        return cls.model_validate(
            {k: v for one in layers for k, v in cls.expanded(one).items()}
        )

    def as_flags(self) -> list[str]:
        """Write the settings as the flags that :func:`parse_step` reads."""
        flags: list[str] = []
        for name, value in self.model_dump(mode="json").items():
            if value is None and type(self).model_fields[name].default is None:
                continue
            # One word a knob, so that an empty text or a leading dash stays its value; keys
            # sorted, so that their order in a file is no change that reruns a step.
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            flags.append(f"{_flag(name)}={text}")
        return flags


class StepFiles(argparse.Namespace):
    """Files and names of one step: each flag is an attribute.

    ``stamp`` holds the deterministic facts that every output carries: stage, step,
    version, names, knobs, and the fingerprint of every input.
    """

    stamp: dict[str, Any]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - Path, list of Path, str or None
        raise AttributeError(name)


K = TypeVar("K", bound=Knobs)
# Digests of the stages' code, which rules put into the environment of their commands.
SOURCES = "PHENOPIPE_SOURCES"
# Versions that a record names, where the command used them.
PACKAGES = ("numpy", "polars", "scikit-learn", "scipy", "timm", "torch", "zarr")


def parse_step(
    knobs: type[K],
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    names: Sequence[str] = (),
    doc: str | None = None,
    argv: Sequence[str] | None = None,
) -> tuple[StepFiles, K]:
    """Read one step's command line and check that its inputs exist.

    Parameters
    ----------
    knobs : type
        The step's knobs class.
    inputs, outputs : list of str
        Names of file flags. ``"wells"`` is one file, ``"wells*"`` any number of files,
        ``"genes?"`` a file that may be left out.
    names : list of str
        Names of the rule's wildcards, such as ``"experiment"``.
    doc : str
        The module's docstring; its first line names the step.

    Returns
    -------
    files : StepFiles
        A path, list of paths, or None for each file, a string for each name, and the stamp.
    knobs : Knobs
        The checked settings.

    Raises
    ------
    UserError
        If an input does not exist.
    """
    # @FILE stands for its lines: thousands of inputs are longer than a command may be.
    parser = _Parser(
        description=doc,
        argument_default=argparse.SUPPRESS,
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    for spec in (*inputs, *outputs):
        _add_file(parser, spec)
    for name in names:
        parser.add_argument(_flag(name), required=True, metavar="NAME")
    for name, field in knobs.model_fields.items():
        parser.add_argument(_flag(name), help=field.description, metavar="VALUE")
    given = vars(parser.parse_args(argv))
    files = StepFiles()
    for spec in (*inputs, *outputs):
        name = spec.rstrip("*?")
        setattr(files, name, given.pop(name, [] if spec.endswith("*") else None))
    for name in names:
        setattr(files, name, given.pop(name))
    settings = knobs.model_validate({name: _read(text) for name, text in given.items()})
    read = {spec.rstrip("*?"): _paths(files, spec) for spec in inputs}
    for name, paths in read.items():
        for path in paths:
            if not path.exists():
                raise UserError(f"{path}: no such file, wanted by {_flag(name)}")
    stage, _, step = _caller().partition(".")
    files.stamp = {
        "stage": stage,
        "step": step,
        "version": __version__,
        "names": {name: getattr(files, name) for name in names},
        "knobs": settings.model_dump(mode="json"),
        "inputs": {name: [fingerprint(p) for p in paths] for name, paths in read.items()},
    }
    _RUNNING.update(
        stamp=files.stamp, outputs=[p for spec in outputs for p in _paths(files, spec)]
    )
    return files, settings


# What the running command wrote, for its provenance record; one command is one process.
_RUNNING: dict[str, Any] = {}


def run_step(main: Callable[[], None]) -> None:
    """Run a command: a user's mistake becomes one line, success a provenance record."""
    started = time.time()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except ValidationError as error:
        sys.exit(f"error: {describe(error)}")
    _record(started)


def describe(error: ValidationError, prefix: str = "") -> str:
    """Tell a pydantic error in one line: key path, value found, what is wanted.

    Examples
    --------
    >>> class Example(Knobs):
    ...     draws: int = 10
    >>> try:
    ...     Example.model_validate({"drawz": 3})
    ... except ValidationError as error:
    ...     describe(error, "consistency.pvalues")
    'consistency.pvalues.drawz: unknown key (found 3)'
    """
    told = []
    for one in error.errors():
        key = ".".join(str(part) for part in (prefix, *one["loc"]) if part != "")
        if one["type"] == "extra_forbidden":
            told.append(f"{key}: unknown key (found {one['input']!r})")
        elif one["type"] == "missing":
            told.append(f"{key}: missing key")
        else:
            wanted = one["msg"].removeprefix("Value error, ")
            told.append(f"{key}: {wanted} (found {one['input']!r})")
    return "; ".join(told)


def _record(started: float) -> None:
    """Write who ran the step, where and when, apart from results: those stay equal."""
    stamp, outputs = _RUNNING.get("stamp"), _RUNNING.get("outputs")
    if not stamp or not outputs:
        return
    name = "_".join([stamp["step"], *map(str, stamp["names"].values())])
    path = Path("logs", "provenance", stamp["stage"], f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "stamp": stamp,
        "outputs": {str(p): fingerprint(p) for p in outputs if p.exists()},
        # Outputs may be gone when their room is planned for.
        "bytes": sum(size(p) for p in outputs),
        "source": json.loads(os.environ.get(SOURCES, "{}")).get(stamp["stage"]),
        "packages": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in PACKAGES
                if name.replace("scikit-learn", "sklearn") in sys.modules
            },
        },
        "host": platform.node(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "started": started,
        "seconds": round(time.time() - started, 3),
    }
    path.write_text(json.dumps(record, indent=1, sort_keys=True))


def _caller() -> str:
    """Name the command as ``stage.step``, from the module that Python was asked to run."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec else ""
    return name.removeprefix("phenopipe.") if name.startswith("phenopipe.") else "library."


class _Parser(argparse.ArgumentParser):
    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Take a line of a file of arguments as one word; an empty list leaves one empty."""
        return [arg_line] if arg_line else []


def _add_file(parser: argparse.ArgumentParser, spec: str) -> None:
    name = spec.rstrip("*?")
    if spec.endswith("*"):
        parser.add_argument(_flag(name), type=Path, nargs="*", default=[], metavar="FILE")
    else:
        # A rule without the optional file still writes the flag, with nothing after it.
        nargs = "?" if spec.endswith("?") else None
        parser.add_argument(
            _flag(name), type=Path, nargs=nargs, required=nargs is None, metavar="FILE"
        )


def _paths(files: StepFiles, spec: str) -> list[Path]:
    value = getattr(files, spec.rstrip("*?"))
    return value if isinstance(value, list) else [] if value is None else [value]


def _read(text: str) -> object:
    """Read a flag's value: JSON where it is a list, a mapping or null, else the text."""
    return json.loads(text) if text.startswith(("[", "{")) or text == "null" else text


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
