"""Makes the plan of a study: each run with its arguments, its folder and the runs that it needs."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError, nearest
from distill_lightning.files import parse_yaml
from distill_lightning.runs import RunConfig, identity, named
from distill_lightning.studies.finished import finished_runs
from distill_lightning.studies.reading import Entry, Options, Study, Variables, fill, place_of
from distill_lightning.studies.references import Reference, check_references, references_in, substitute
from distill_lightning.studies.resources import NOTHING_SAID, Resources

LONGEST_NAME_BYTES = 150
"""The largest length of a run's name without its digest."""


@dataclass(frozen=True)
class Resolved:
    """What the arguments of ``distill fit`` or ``distill compute`` resolve to."""

    config: RunConfig
    """The resolved configuration."""
    stem: Path
    """The folder that the run's folder lies in: logs/<data set>/<method>."""
    trains: bool
    """Whether the run leaves a checkpoint."""
    val_tags: frozenset[str] | None = None
    """The tags that a validation of the run can log; None if they are not known before training."""


Resolve = Callable[[list[str]], Resolved]
"""Resolves the arguments of ``distill``. It raises InputError if they are wrong."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a study. Two of these are equal only if they are the same object."""

    entry: str
    variables: Variables
    arguments: tuple[str, ...]
    """The arguments of the command ``distill`` that train the run."""
    digest: str
    folder: Path
    trains: bool
    """Whether it leaves a checkpoint."""
    requested_gpus: int | None
    """See the function `requested_gpus`."""
    needs: tuple["PlannedRun", ...] = field(repr=False)
    """The runs that must be done before this one starts."""
    same_as: "PlannedRun | None" = field(default=None, repr=False)
    """A run of another entry with the same configuration. If there is one, this run is not trained again."""
    resources: Resources = NOTHING_SAID
    """What the machine that trains it must have."""
    val_tags: frozenset[str] | None = None
    """See Resolved."""

    @property
    def name(self) -> str:
        """The name of the run within the study, without its digest."""
        return run_name(self.entry, self.variables)

    def finished(self) -> bool:
        """Whether the run's folder has a summary.json now."""
        return (self.folder / "summary.json").is_file()

    def command(self) -> str:
        """The command that trains the run, quoted for a shell."""
        return shlex.join(["distill", *self.arguments])


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study, each after the runs that it needs."""

    path: Path
    entries: dict[str, tuple[PlannedRun, ...]]

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """All runs, each after the runs that it needs."""
        return tuple(run for runs in self.entries.values() for run in runs)

    @property
    def variables(self) -> dict[str, list[Variables]]:
        """The variables of each run, by entry."""
        return {name: [run.variables for run in runs] for name, runs in self.entries.items()}

    def script(self) -> str:
        """The plan as a shell script: a command for each run, after the runs that it needs. Finished runs are
        comments.
        """
        done = {run for run in self.runs if run.finished()}
        lines = [f"# {self.path}: {len(self.runs)} runs, {len(done)} done"]
        for run in self.runs:
            if run in done:
                lines.append(f"# done: {run.folder}")
            elif run.same_as is not None:
                lines.append(f"# {run.name}: the same as {run.same_as.name}")
            else:
                needs = "".join(f"\n#   needs {need.folder}" for need in run.needs if need not in done)
                begun = " (begun)" if run.folder.is_dir() else ""
                lines.append(f"# {run.name}{begun}{needs}\n{run.command()}")
        return "\n".join(lines)


def plan_study(
    study: Study,
    log_dir: str,
    resolve: Resolve,
    given: list[str],
    records: Path | None = None,
    will_train: bool = True,
) -> StudyPlan:
    """Plans every run of a study.

    Args:
        study: the study, from `read_study`.
        log_dir: the folder that runs are written to.
        resolve: resolves the arguments of a command, and raises InputError if they are wrong.
        given: arguments from the command line for every run.
        records: the folder of records. A run that has one is finished, unless a run that must be trained needs it.
        will_train: whether the missing runs will be trained. If not, every run that has a record is finished.

    Raises:
        InputError: a reference or an option is wrong.
    """
    recorded = finished_runs(records) if records else {}
    resolved: dict[str, Resolved] = {}
    while True:
        planner = _Planner(study, log_dir, resolve, given, recorded, resolved)
        for name in study.entries:
            planner.plan_entry(name, ())
        plan = StudyPlan(study.path, planner.entries)
        without_weights = set(recorded.values())
        needed = {need.folder for run in plan.runs if not run.finished() for need in run.needs if run.same_as is None}
        if not will_train or not needed & without_weights:
            return plan
        # these are trained again, and so is what they need themselves
        recorded = {what: folder for what, folder in recorded.items() if folder not in needed}


def run_name(entry: str, variables: Variables) -> str:
    """The entry, then each variable with its value, as "student-seed0-temperature4"."""
    return "-".join([entry, *(f"{key}{value}" for key, value in variables.items())])


def requested_gpus(devices: Any) -> int | None:
    """The number of GPUs that ``trainer.devices`` requests: -1 for all, None if it names the GPUs, 1 for "auto"."""
    if isinstance(devices, list) or "," in str(devices):
        return None
    return int(devices) if re.fullmatch(r"-?\d+", str(devices)) else 1


class _Planner:
    """Makes a plan. It keeps what it has planned and resolved so far."""

    def __init__(
        self,
        study: Study,
        log_dir: str,
        resolve: Resolve,
        given: list[str],
        recorded: dict[str, Path],
        resolved: dict[str, Resolved],
    ) -> None:
        self.study, self.log_dir, self.resolve, self.given = study, log_dir, resolve, given
        self.entries: dict[str, tuple[PlannedRun, ...]] = {}
        self.finished = recorded | finished_runs(Path(log_dir))
        self.by_identity: dict[str, list[PlannedRun]] = {}
        self.identities: dict[Path, str] = {}
        self.resolved = resolved

    def plan_entry(self, name: str, above: tuple[str, ...]) -> None:
        """Plans the entries that an entry needs, then the entry itself.

        Args:
            name: the name of the entry.
            above: the entries that need it and are being planned.
        """
        if name in self.entries:
            return
        if name in above:
            circle = " needs ".join([*above[above.index(name) :], name])
            raise InputError(f"{self.study.path} has a circle: {circle}")
        entry, where = self.study.entries[name], place_of(self.study.path, name)
        check_references(entry.options)
        for needed in sorted({reference.entry for reference in references_in(entry.options)}):
            self.plan_needed(needed, (*above, name), where)
        runs = []
        for variables in entry.combinations:
            options = fill(entry.options, variables, where)
            for reference in references_in(options):  # a variable's value may be a reference, too
                self.plan_needed(reference.entry, (*above, name), where)
            runs.append(self.plan_run(entry, variables, options, where))
        self.entries[name] = tuple(runs)

    def plan_needed(self, name: str, above: tuple[str, ...], where: str) -> None:
        """Plans an entry that a reference names."""
        if name not in self.study.entries:
            near = nearest(name, self.study.entries)
            raise InputError(f"{where} needs {name}, which is no run of this study{near}")
        self.plan_entry(name, above)

    def plan_run(self, entry: Entry, variables: Variables, options: Options, where: str) -> PlannedRun:
        """Plans one run.

        Args:
            entry: the entry of the run.
            variables: the values of the run's variables.
            options: the options, with variables replaced.
            where: the place in the study, for errors.
        """
        options = dict(options)
        if "seed" in variables:
            options.setdefault("seed_everything", variables["seed"])
        needs: dict[PlannedRun, None] = {}
        paths: dict[str, str | list[str]] = {}
        for reference in references_in(options):
            if reference.text not in paths:
                found, is_list = self.find(reference, variables, where)
                needs |= dict.fromkeys(found)
                files = [reference.path_in(run.folder) for run in found]
                paths[reference.text] = files if is_list else files[0]
        filled = substitute(options, paths)
        seed = filled.pop("seed_everything", None)
        given = self.given if entry.function is None else _of_data(self.given)
        resolved = self.resolve_run(entry, options, paths, where)
        config = resolved.config
        if seed is not None and not any(word.startswith("--seed_everything") for word in given):
            config = config.with_options(seed_everything=seed)
        mark = config.id(lambda folder: self.identities.get(folder) or identity(folder))
        name = re.sub(r"[^\w.=-]+", "_", run_name(entry.name, variables)).encode()[:LONGEST_NAME_BYTES]
        folder = resolved.stem / f"{name.decode(errors='ignore')}-{mark[:8]}"
        what = named(folder, mark)
        twins = self.by_identity.setdefault(what, [])
        if twin := next((twin for twin in twins if twin.entry == entry.name), None):
            raise InputError(
                f"{where}: {twin.variables} and {variables} give the same run: use each variable in an option, as "
                "{name}, or call one of them seed"
            )
        first = twins[0] if twins else None
        if first is not None:  # another entry has the same run under another name: this one waits for that one
            folder, arguments = first.folder, first.arguments
            needs[first] = None
        else:
            arguments = (*_begin(entry), *as_arguments(filled), *given)
            if seed is not None:  # put after any --config in ``given``, because that has a seed too
                arguments += (f"--seed_everything={config.seed}",)
            arguments += ("--log_dir", self.log_dir, "--name", folder.name)
            arguments += () if entry.function else ("--ckpt_path", "auto")
            folder = self.finished.get(what, folder)
        gpus = requested_gpus(config.options["trainer"].get("devices"))
        more = (resolved.trains, gpus, tuple(needs), first, entry.resources, resolved.val_tags)
        run = PlannedRun(entry.name, variables, arguments, mark, folder, *more)
        twins.append(run)
        self.identities[folder] = what
        return run

    def resolve_run(self, entry: Entry, options: Options, paths: dict[str, str | list[str]], where: str) -> Resolved:
        """What a run's options resolve to, without its seed.

        Resolving is slow. Runs that differ only in their seed and in the paths of references have the same
        configuration otherwise. So the options are resolved once, without the seed and with marks in place of paths,
        and the result is kept.
        """
        marks = {text: f"needs-{number}" for number, text in enumerate(paths)}
        template = substitute(options, {text: [m] if isinstance(paths[text], list) else m for text, m in marks.items()})
        template.pop("seed_everything", None)
        given = self.given if entry.function is None else _of_data(self.given)
        arguments = [*_begin(entry), *as_arguments(template), *given]
        key = json.dumps(arguments)
        if key not in self.resolved:
            try:
                self.resolved[key] = self.resolve([*arguments, "--log_dir", self.log_dir])
            except InputError as error:
                texts = {mark: text for text, mark in marks.items()}
                message = re.sub(r"needs-\d+", lambda found: texts.get(found[0], found[0]), str(error))
                raise InputError(f"{where}: {message}") from error
        resolved = self.resolved[key]
        marked = {mark: paths[text] for text, mark in marks.items()}
        return replace(resolved, config=resolved.config.replaced(substitute(resolved.config.options, marked)))

    def find(self, reference: Reference, variables: Variables, where: str) -> tuple[tuple[PlannedRun, ...], bool]:
        """The runs that a reference selects, and whether it stands for a list of paths."""
        name, runs = reference.entry, self.entries[reference.entry]
        known = runs[0].variables
        wanted = {key: value for key, value in variables.items() if key in known}
        for key, text in reference.restrictions:
            if key not in known:
                raise InputError(f"{where}: {name} has no variable {key}{nearest(key, known)}")
            wanted[key] = parse_yaml(text, where)
        found = tuple(run for run in runs if all(run.variables[key] == value for key, value in wanted.items()))
        if not found:
            values = ", ".join(f"{key} {value}" for key, value in wanted.items())
            raise InputError(
                f"{where} needs {name} with {values}, which is no run of this study: where all runs need the same one, "
                f"write ${{{name}: {next(iter(wanted), 'variable')}=value}}"
            )
        if not found[0].trains:
            raise InputError(f"{where} needs {name}, which leaves no checkpoint: name the runs of its members instead")
        return found, bool(known.keys() - wanted.keys())


def _begin(entry: Entry) -> list[str]:
    """The verb of an entry's command, and what it works with."""
    if entry.function is not None:
        return ["compute", entry.function]
    return ["fit", *(word for file in entry.configs for word in ("--config", file))]


def _of_data(given: list[str]) -> list[str]:
    """Those of the arguments for every run that concern a function too: where the data are."""
    found: list[str] = []
    for number, word in enumerate(given):
        if word.startswith("--data."):
            found += [word] if "=" in word else given[number : number + 2]
    return found


def as_arguments(options: Options) -> list[str]:
    """Options as arguments of a command. A value that YAML reads as a date becomes a string."""
    plain = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in options.items()}
    return [f"--{key}={value}" for key, value in plain.items()]
