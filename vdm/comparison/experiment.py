"""What an experiment is: a question, arms, seeds, a budget, and how the results are scored.

A folder with ``experiment.yaml``. An arm is an overlay of a recipe, in the file ``<arm>.yaml``
beside it; or another recipe; or several stages, each a recipe, that make one cascade; or only
another way of sampling a model that is there already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from vdm.cli_parsing import nearest

FILE = "experiment.yaml"


@dataclass(frozen=True)
class Stage:
    """One training run of an arm.

    Args:
        name: Unique among the stages of the arm.
        configs: Recipe first, then overlays.
        share: Part of the arm's budget.
        role: What a cascade uses it for; empty for an arm of one stage.
        factor: Of a stage of a cascade; the usual one if None.
    """

    name: str
    configs: tuple[Path, ...]
    share: float = 1.0
    role: str = ""
    factor: int | None = None


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    Args:
        name: What it is called.
        stages: What is trained; empty where a model is there already.
        model: That model: a bundled name or a path.
        sample: How its clips are made, beyond what all arms share.
        settings: The lines of YAML that make the arm, for the report.
    """

    name: str
    stages: tuple[Stage, ...] = ()
    model: str | None = None
    sample: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How much training an arm gets; one of them.

    Args:
        flops: Floating-point operations of forward and backward passes, see
            :mod:`vdm.comparison.budget`.
        samples: Training samples.
        steps: Optimiser steps.

    Raises:
        ValueError: If none or several are given, or it is not positive.
    """

    flops: float | None = None
    samples: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check that there is one."""
        given = [value for value in (self.flops, self.samples, self.steps) if value is not None]
        if len(given) != 1 or not float(given[0]) > 0:
            raise ValueError(f"got budget {self}, expected one positive of flops, samples, steps")


@dataclass(frozen=True)
class Scoring:
    """How clips are scored: arguments of :func:`vdm.pipelines.evaluate.evaluate`.

    Args:
        data: Splits of the world.
        num_objects: Each split with so many objects.
        n: Clips per data set.
        protocols: What is measured.
        batch_size: Clips made together.
        num_resamples: Of every bootstrap.
        sample: How clips are made: ``steps``, ``guidance_scale``, ``sampler``, ...
    """

    data: tuple[str, ...] = ("test-iid",)
    num_objects: tuple[int, ...] = (1,)
    n: int = 64
    protocols: tuple[str, ...] = ("caption-accuracy",)
    batch_size: int = 16
    num_resamples: int = 1000
    sample: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A question, and what is run to answer it.

    Args:
        folder: Where it lies.
        question: What is asked.
        hypothesis: What is expected, with its sign.
        arms: What is compared; the first is the baseline.
        seeds: Every arm is run with each.
        budget: How much every arm is trained; None where nothing is.
        scoring: How clips are scored.
        sweep: Values of sampling arguments, each scored too: ``{"steps": [5, 25]}``.
        sweep_n: Clips per value of a sweep.
        timed: Values that clips are timed under, but not scored: ``{"num_frames": [8, 64]}``.
        autoencoder: Whose latents all arms share.
        overrides: Keys of the recipes that all arms share, e.g. ``trainer.precision: 32-true``.
        measure: Functions ``module:name``, called as
            ``function(model, sample, seed, is_smoke)``; the rows that they return, plain data,
            become part of the results.
        sheet: Keep pictures of what every arm makes of the same captions, under the first seed.

    Raises:
        ValueError: If there is no arm or no seed, or two arms have one name.
    """

    folder: Path
    question: str
    hypothesis: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: Budget | None = None
    scoring: Scoring = Scoring()
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    sweep_n: int = 32
    timed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    autoencoder: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    measure: tuple[str, ...] = ()
    sheet: bool = False

    def __post_init__(self) -> None:
        """Check the arms and seeds."""
        names = [arm.name for arm in self.arms]
        if not names or not self.seeds:
            raise ValueError(f"{self.folder.name}: got no arm or no seed, expected one of each")
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"{self.folder.name}: got an arm or a seed twice")
        untrained = [arm.name for arm in self.arms if not arm.stages]
        if self.budget is None and len(untrained) < len(names):
            raise ValueError(f"{self.folder.name}: got arms to train, expected a budget")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    def arm(self, name: str) -> Arm:
        """The arm of a name.

        Raises:
            ValueError: If there is none.
        """
        arms = {arm.name: arm for arm in self.arms}
        if name not in arms:
            raise ValueError(f"got arm {name!r}, {nearest(name, arms)}")
        return arms[name]


def read_experiment(folder: str | Path) -> Experiment:
    """Read ``experiment.yaml`` of a folder.

    Args:
        folder: The experiment; recipes lie in ``../../configs``, seen from it.

    Raises:
        FileNotFoundError: If it or a file that it names is not there.
        ValueError: If a key is unknown or a value cannot be used.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"got {folder}, expected a folder that holds {FILE}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: got {type(content).__name__}, expected keys and values")
    _check_keys(path, content, {f.name for f in fields(Experiment)} - {"folder"} | {"recipe"})
    for key in ("question", "hypothesis", "arms"):
        if not content.get(key):
            raise ValueError(f"{path}: got no {key}, expected one")
    recipe = content.pop("recipe", None)
    arms = content.pop("arms")
    if isinstance(arms, list):
        arms = dict.fromkeys(arms)
    made = tuple(_arm(path, name, options or {}, recipe) for name, options in arms.items())
    try:
        if (budget := content.pop("budget", None)) is not None:
            content["budget"] = _budget(path, budget)
        if (scoring := content.pop("scoring", None)) is not None:
            _check_keys(path, scoring, {f.name for f in fields(Scoring)})
            content["scoring"] = Scoring(**{k: _frozen(v) for k, v in scoring.items()})
        values = {key: _frozen(value) for key, value in content.items()}
        return Experiment(folder, arms=made, **values)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def _arm(path: Path, name: str, options: Mapping[str, Any], recipe: str | None) -> Arm:
    """One arm, with the files that it is made of."""
    _check_keys(path, options, {"recipe", "stages", "sample", "model"})
    own = path.parent / f"{name}.yaml"
    overlays = (own,) if own.is_file() else ()
    sample, model = options.get("sample", {}), options.get("model")
    settings = {k: v for k, v in options.items() if k != "recipe"}
    if overlays:
        settings |= yaml.safe_load(own.read_text(encoding="utf-8")) or {}
    if model is not None:
        return Arm(name, (), model, sample, settings)
    if (stages := options.get("stages")) is not None:
        made = []
        for role, stage in stages.items():
            _check_keys(path, stage, {"recipe", "overlay", "share", "factor"})
            extra = () if "overlay" not in stage else (_existing(path.parent / stage["overlay"]),)
            configs = (_recipe(path, stage["recipe"]), *extra)
            share, factor = float(stage.get("share", 1)), stage.get("factor")
            made.append(Stage(f"{name}-{role}", configs, share, role, factor))
        total = sum(stage.share for stage in made)
        made = [replace(stage, share=stage.share / total) for stage in made]
        return Arm(name, tuple(made), None, sample, settings)
    chosen = options.get("recipe", recipe)
    if chosen is None:
        raise ValueError(f"{path}: arm {name!r} has no recipe, stages or model, expected one")
    if chosen == recipe and not overlays and not options:
        raise ValueError(f"{path}: arm {name!r} differs in nothing, expected {own.name} beside it")
    settings |= {"recipe": chosen} if "recipe" in options else {}
    return Arm(name, (Stage(name, (_recipe(path, chosen), *overlays)),), None, sample, settings)


def _recipe(path: Path, name: str) -> Path:
    return _existing(path.parent.parent.parent / "configs" / f"{name}.yaml")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"got {path}, expected a file that exists")
    return path


def _check_keys(path: Path, content: Mapping[str, Any], legal: set[str]) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: got {content!r}, expected keys: {', '.join(sorted(legal))}")
    for key in content:
        if key not in legal:
            raise ValueError(f"{path}: got key {key!r}, {nearest(str(key), legal)}")


def _budget(path: Path, content: Mapping[str, Any]) -> Budget:
    _check_keys(path, content, {f.name for f in fields(Budget)})
    # YAML reads 1e12 as text.
    values: dict[str, Any] = {k: float(v) if k == "flops" else int(v) for k, v in content.items()}
    return Budget(**values)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
