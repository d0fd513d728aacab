"""Evaluating a trained network on held-out images of its data or other data, or on shifted ones (robustness.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roadmap.data.annotated_folders import describe_now
from roadmap.data.datasets import has_class_names
from roadmap.data.robustness import FILE, Evaluation, Shifted, append_evaluation, find_shifted, read_evaluations
from roadmap.options import Selection, StudyOptions
from roadmap.progress import counting
from roadmap.record.run import Run, find_run
from roadmap.study.execution import Execution
from roadmap.tasks.registry import CLASSIFICATION, TASKS
from runner.data.datasets import class_names, source
from runner.measure.held_out import evaluate_in_process
from runner.measure.robustness import evaluate_shifted
from runner.measure.trained import Trained, Weights, read_peer, read_trained
from runner.train.tasks.task import Scores

Report = Callable[[int, int], None]  # images done, and all


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and with which weights. Raises ValueError for options that do not go together."""

    runs: tuple[str | Path, ...]  # as `find_run` takes them; with `state_dict` one rung
    study: StudyOptions
    out: Path | None = None  # folder of the runs
    weights: Weights = "raw"
    state_dict: Path | None = None  # a file with the weights of a peer
    peer: str | None = None  # LIBRARY/NAME of the network that they are of

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs must name at least one run (got none)")
        if self.state_dict is None:
            return
        if len(self.runs) > 1:
            raise ValueError(f"--state-dict takes one rung (got {len(self.runs)})")
        if self.weights == "ema":
            raise ValueError("--weights ema requires a run: with --state-dict the file determines the weights")
        if self.peer is None:
            raise ValueError("--state-dict requires --of LIBRARY/NAME, such as torchvision/convnext_tiny")


@dataclass(frozen=True)
class Subject:
    """A network to evaluate, and the execution."""

    trained: Trained
    execution: Execution
    folder: Path | None  # of its run, in which results on shifted images are stored; None: the weights are from a file
    is_on_own_data: bool = False  # that the run was trained on
    note: str = ""  # that the run's own folder, given as other data, has changed


@dataclass(frozen=True)
class HeldOut:
    """A network's metrics on held-out images."""

    run: str
    data: str
    images: int
    scores: Scores
    notes: tuple[str, ...]  # what a reader should know: training has not finished, the data has changed

    @property
    def record(self) -> dict[str, Any]:
        """As plain data."""
        scores = {**self.scores.values, "skipped_images": self.scores.skipped_images}
        return {"run": self.run, "data": self.data, **scores}


@dataclass(frozen=True)
class OnShifted:
    """A network's evaluations on shifted images, one for each part."""

    trained: Trained
    shifted: Shifted
    evaluations: tuple[Evaluation, ...]
    notes: tuple[str, ...]


def evaluate(options: EvaluateOptions) -> Iterator[HeldOut | OnShifted]:
    """Evaluates one network after the other on held-out images, or on the shifted ones that `--data` names.

    Shows progress. Each result on shifted images is stored in the run's folder at once, and not measured again. Raises
    ValueError for options that do not apply, a run that is absent or has no such weights, and data with other classes.
    """
    study, shifted = _shifted_data(options.study)
    for name in options.runs:
        subject = _load_subject(name, replace(options, study=study))
        if shifted and subject.trained.run.task != CLASSIFICATION:
            raise ValueError(f"--data {options.study.data}: {subject.trained.run.name} is no classifier")
        with counting("evaluating", "images") as report:
            result = _evaluate_on_shifted(subject, shifted, report) if shifted else _evaluate_held_out(subject, report)
        yield result


def _shifted_data(options: StudyOptions) -> tuple[StudyOptions, Shifted | None]:
    """The options without `--data`, and the shifted images that it names: the network was not trained on them.

    If `--data` is absent, or names a data set with training images, the options are unchanged and the second is None.
    Raises ValueError for a folder with another layout.
    """
    shifted = None if options.data is None else find_shifted(options.data, options.study().datasets)
    return (replace(options, data=None) if shifted else options), shifted


def _load_subject(name: str | Path, options: EvaluateOptions) -> Subject:
    """The network of a run, or with `state_dict` that of a rung with a peer's weights."""
    if options.state_dict is None:
        return _subject_of_run(name, options)
    selection = Selection.of(options.study)
    run = selection.run(selection.rung(str(name)))
    assert options.peer is not None
    return Subject(read_peer(run, options.state_dict, options.peer), selection.execution, None)


def _subject_of_run(name: str | Path, options: EvaluateOptions) -> Subject:
    """A run's network, to evaluate on its data or on other data with the same classes."""
    study = options.study
    given = {"--of": options.peer, "--regime": study.regime, "--fidelity": study.fidelity}
    unused = [option for option, value in given.items() if value]
    unused += [f"--set {setting}" for setting in study.settings if not setting.startswith("execution.")]
    if unused:
        raise ValueError(f"{unused[0]} requires --state-dict: a run is evaluated as it was trained")
    study.study()  # loads the plugins, which the network may need
    folder = find_run(name, study.out(options.out))
    trained = read_trained(folder, averaged=options.weights == "ema")
    run = trained.run
    selection = Selection.of(replace(study, regime=run.regime))
    if study.data is None:
        return Subject(trained, replace(selection.execution, data_path=trained.data_path), folder, True)
    needed = TASKS.find(run.task).annotations
    if selection.dataset.annotations != needed:
        raise ValueError(
            f"--data {study.data} has {selection.dataset.annotations} for each image; {run.name} needs {needed}"
        )
    # The images are normalized as in training.
    dataset = replace(selection.dataset, mean=run.dataset.mean, std=run.dataset.std)
    other = replace(run, data=selection.context.data, dataset=dataset)
    _check_classes(f"--data {study.data}", trained, other, selection.execution)
    path = selection.execution.data_path
    is_own = path is not None and trained.data_path is not None and path.resolve() == trained.data_path.resolve()
    note = _changed(str(path), run) if is_own and other.dataset.content != run.dataset.content else ""
    return Subject(replace(trained, run=other), selection.execution, folder, note=note)


def _own_data_now(subject: Subject) -> tuple[Run, str]:
    """The run with its data as they are now, and a sentence if they are not as it was trained on.

    Raises ValueError if the classes are others.
    """
    trained, path, note = subject.trained, subject.execution.data_path, ""
    run = trained.run
    if run.kind == "memory":
        return run, note
    root = source(run).find(Path(path) if path else None)
    if run.dataset.content is not None and root is not None:
        now = describe_now(root)
        if now.content == run.dataset.content:  # a hash that includes the names of the classes
            return run, note
        note = _changed(str(root), run)
        run = replace(run, dataset=replace(now, mean=run.dataset.mean, std=run.dataset.std))
    if note or trained.classes:  # the record of an older version has no classes
        _check_classes(str(root), trained, run, subject.execution)
    return run, note


def _changed(data: str, run: Run) -> str:
    return f"{data} is no longer what {run.name} was trained on: files were added, removed or changed"


def _check_classes(data: str, trained: Trained, other: Run, execution: Execution) -> None:
    """Raises ValueError unless the data has the classes of the network's outputs, in the same order."""
    theirs, ours = class_names(other, execution.data_path), trained.class_names
    if len(theirs) != len(ours):
        raise ValueError(f"{data} must have {len(ours)} classes (got {len(theirs)})")
    if theirs != ours:
        name, expected = next(pair for pair in zip(theirs, ours, strict=True) if pair[0] != pair[1])
        raise ValueError(f"{data} must have the classes of {trained.run.name}: {expected!r} (got {name!r})")
    are_numbered = not any(has_class_names(run.data, run.dataset) for run in (trained.run, other))
    if are_numbered and trained.run.data != other.data:
        raise ValueError(f"{data}: without names, its classes can't be matched with those of {trained.run.data}")


def _evaluate_held_out(subject: Subject, report: Report) -> HeldOut:
    """Evaluates on the held-out images of the data. `report` gets the number of images done, and of all.

    Raises ValueError if the classes of the run's own data have been renamed.
    """
    run, note = _own_data_now(subject) if subject.is_on_own_data else (subject.trained.run, subject.note)
    scores = evaluate_in_process(run, subject.trained.network, subject.execution, report)
    return HeldOut(run.name, run.data, run.dataset.test_images, scores, _notes(subject.trained.note, note))


def _evaluate_on_shifted(subject: Subject, shifted: Shifted, report: Report) -> OnShifted:
    """Evaluates part by part. Raises ValueError for a class that the network does not have.

    An interrupt between two parts has a note that says where the results so far are.
    """
    known = read_evaluations(subject.folder) if subject.folder else []
    evaluations: list[Evaluation] = []
    try:
        for evaluation, is_known in evaluate_shifted(subject.trained, subject.execution, shifted, known, report):
            evaluations.append(evaluation)
            if subject.folder and not is_known:
                append_evaluation(subject.folder, evaluation)
    except (KeyboardInterrupt, SystemExit) as stop:
        if subject.folder and evaluations:
            kept = subject.folder / FILE
            stop.add_note(f"the results so far are kept in {kept}; the same command measures the rest")
        raise
    return OnShifted(subject.trained, shifted, tuple(evaluations), _notes(subject.trained.note))


def _notes(*notes: str) -> tuple[str, ...]:
    return tuple(filter(None, notes))
