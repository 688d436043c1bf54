"""Several runs with an order, and the table they are for: ``distill study FILE``.

A study is a YAML file.

    for: {seed: 3}                          # variables: a number n stands for 0 .. n - 1, a list for itself
    options: {trainer.max_epochs: 20}       # of every run
    runs:
      teacher:
        config: ../mnist/teacher.yaml       # one file or several, from where the study lies
      student:
        config: ../mnist/kd.yaml
        for: {seed: 3, temperature: [1, 4, 20]}     # in place of the study's own
        options:
          model.temperature: "{temperature}"        # variables by name
          trainer.callbacks.teacher: ${teacher}     # a checkpoint of another run
    tables, figures: see distill_lightning/report/study.py

An entry stands for one run for each combination of its variables. ``seed``, where it is one, is the run's seed.
``${teacher}`` stands for the last checkpoints of all runs of that entry that agree with this run in the variables that
they share: one path where that leaves no choice, a list where it does (an ensemble's members). ``${teacher/best}``
takes best.ckpt, ``${single/ticket}`` the lottery ticket, ``${single: member=0}`` those with that value.

Each run is an ordinary run, named by entry, variables and the digest of its configuration: a value that changes makes
another run of it, and of what needs it, and of nothing else. A run with the digest that is finished anywhere under the
log folder is not run again. Runs hold their folders (`runs.Run.hold`): what another study is at is waited for.
"""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live

from distill_lightning.errors import InputError, LineParser, nearest
from distill_lightning.report.study import Check, write_tables
from distill_lightning.runs import OF_STUDY, Run, RunConfig, identity, named

KEYS = {"for", "options", "runs", "tables", "figures"}
KEYS_OF_ENTRY = {"config", "for", "options"}
REFERENCE = re.compile(r"\$\{\s*(\w+)(?:/(last|best|ticket))?\s*(?::\s*([^}]*))?\}")
POLL_S = 0.1
SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
FILES = {"last": "checkpoints/last.ckpt", "best": "checkpoints/best.ckpt", "ticket": "ticket.pt"}
RESERVED = {"name", "log_dir", "ckpt_path"}
LONGEST_NAME = 150
"""Bytes of a run's name, its digest aside."""


@dataclass
class Resolved:
    """What a command's options come to."""

    config: RunConfig
    stem: Path
    trains: bool


Resolve = Callable[[list[str]], Resolved]


@dataclass
class Planned:
    """One run of a study."""

    entry: str
    variables: dict[str, Any]
    arguments: list[str]
    digest: str
    folder: Path
    trains: bool
    devices: int | None
    needs: list["Planned"]
    same_as: "Planned | None" = None
    state: str = "waiting"
    started: float = 0.0
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return "-".join([self.entry, *(f"{key}{value}" for key, value in self.variables.items())])

    def finished(self) -> bool:
        return (self.folder / "summary.json").is_file()

    def command(self) -> str:
        """As one would give it."""
        return shlex.join(["distill", *self.arguments])


# Reading


def read(path: Path) -> dict[str, Any]:
    """A study's YAML, with its keys checked.

    Raises:
        InputError: no such file, no YAML, an unknown key.
    """
    if not path.is_file():
        beside = [str(file) for file in path.parent.glob("*.yaml")]
        raise InputError(f"there is no study {path}{nearest(str(path), beside)}")
    try:
        study = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    if not isinstance(study, dict) or not isinstance(study.get("runs"), dict) or not study["runs"]:
        raise InputError(f"{path} names no runs: a study has a key runs, with an entry for each kind of run")
    _check_keys(study, KEYS, str(path))
    _check_kind(study.get("options"), dict, f"{path}: options")
    for name, entry in study["runs"].items():
        if not isinstance(entry, dict) or not entry.get("config"):
            raise InputError(f"{path}: the run {name} has no config: name the YAML that it is made with")
        where = f"{path}: the run {name}"
        _check_keys(entry, KEYS_OF_ENTRY, where)
        _check_kind(entry.get("options"), dict, f"{where}: options")
        for config in entry["config"] if isinstance(entry["config"], list) else [entry["config"]]:
            _check_kind(config, str, f"{where}: config")
    study["runs"] = {str(name): entry for name, entry in study["runs"].items()}
    return study


def _check_kind(given: Any, kind: type, where: str) -> None:
    if given is not None and not isinstance(given, kind):
        words = {dict: "options by name", str: "the name of a file"}[kind]
        raise InputError(f"{where} is {given}: expected {words}")


def _check_keys(given: dict[str, Any], known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key}{nearest(str(key), known)}")


def combinations(variables: dict[str, Any] | None, where: str) -> list[dict[str, Any]]:
    """Every combination of the variables' values, the last one turning fastest."""
    if not isinstance(variables or {}, dict):
        raise InputError(f"{where}: for is {variables}: give variables by name, as in {{seed: 3}}")
    values = []
    for name, given in (variables or {}).items():
        if not (isinstance(given, list) and given) and not (type(given) is int and given > 0):
            raise InputError(f"{where}: for {name} is {given}: give a number of 1 or more, or a list of values")
        values.append(given if isinstance(given, list) else list(range(given)))
    return [dict(zip(variables or {}, combination, strict=True)) for combination in itertools.product(*values)]


def fill(value: Any, variables: dict[str, Any], where: str) -> Any:
    """``value`` with {names} replaced. A lone "{name}" keeps the variable's type; what comes to digits is a number."""
    if isinstance(value, dict):
        return {k: fill(v, variables, where) for k, v in value.items()}
    if isinstance(value, list):
        return [fill(v, variables, where) for v in value]
    if not isinstance(value, str) or REFERENCE.fullmatch(value):
        return value
    names = re.findall(r"\{(\w+)\}", value)
    for name in names:
        if name not in variables:
            raise InputError(f"{where}: there is no variable {name}{nearest(name, variables)}")
    if len(names) == 1 and value == "{" + names[0] + "}":
        return variables[names[0]]
    for name in names:
        value = value.replace("{" + name + "}", str(variables[name]))
    return int(value) if names and value.isdigit() else value


# Planning


class Plan:
    """The runs of a study, each after what it needs.

    Args:
        path: of the YAML.
        log_dir: where runs go.
        resolve: gives what a command's options come to.
        given: further options of every run, as on the command line.
    """

    def __init__(self, path: Path, log_dir: str, resolve: Resolve, given: list[str]) -> None:
        self.path, self.log_dir, self.resolve, self.given = path, log_dir, resolve, given
        self.study = read(path)
        self.finished = finished_runs(Path(log_dir))
        self.planned: dict[str, list[Planned]] = {}
        self.identities: dict[Path, str] = {}
        self.resolved: dict[str, Resolved] = {}
        self.entries: dict[str, list[Planned]] = {}
        for name in self.study["runs"]:
            self._plan(name, ())

    @property
    def runs(self) -> list[Planned]:
        return [run for runs in self.entries.values() for run in runs]

    def _plan(self, name: str, above: tuple[str, ...]) -> list[Planned]:
        """Plans an entry, and first what it needs."""
        if name in self.entries:
            return self.entries[name]
        if name in above:
            circle = " needs ".join([*above[above.index(name) :], name])
            raise InputError(f"{self.path} has a circle: {circle}")
        entry, where = self.study["runs"][name], f"{self.path}: the run {name}"
        options = {**(self.study.get("options") or {}), **(entry.get("options") or {})}
        for name_of_ours in RESERVED & options.keys():
            raise InputError(f"{where} sets {name_of_ours}, which is the study's to set: leave it out")
        for needed in sorted({needed for needed, _, _ in _references(options)}):
            if needed not in self.study["runs"]:
                near = nearest(needed, self.study["runs"])
                raise InputError(f"{where} needs {needed}, which is no run of this study{near}")
            self._plan(needed, (*above, name))
        configs = entry["config"] if isinstance(entry["config"], list) else [entry["config"]]
        files = [os.path.relpath(self.path.parent / config) for config in configs]
        planned = [
            self._run(name, variables, files, options, where)
            for variables in combinations(entry.get("for", self.study.get("for")), where)
        ]
        self.entries[name] = planned
        return planned

    def _run(self, entry: str, variables: dict, files: list[str], options: dict, where: str) -> Planned:
        options = fill(options, variables, where)
        if "seed" in variables:
            options.setdefault("seed_everything", variables["seed"])
        needs: list[Planned] = []
        paths: dict[str, str | list[str]] = {}

        def refer(value: Any, path_of: Callable[[str, Any], Any]) -> Any:
            if isinstance(value, dict):
                return {k: refer(v, path_of) for k, v in value.items()}
            if isinstance(value, list):
                return [one for v in value for one in _listed(refer(v, path_of), v)]
            return path_of(value, REFERENCE.fullmatch(value)) if isinstance(value, str) else value

        def look_up(value: str, reference: re.Match | None) -> Any:
            if reference and value not in paths:
                found, several = self._needed(reference, variables, where)
                needs.extend(run for run in found if run not in needs)
                files = [str(run.folder / FILES[reference[2] or "last"]) for run in found]
                paths[value] = files if several else files[0]
            return paths.get(value, value)

        filled = refer(options, look_up)
        # every combination that differs in seed and checkpoints alone comes to the same, but for these
        marks = {value: f"needs-{number}" for number, value in enumerate(paths)}
        listed = {value: [mark] if isinstance(paths[value], list) else mark for value, mark in marks.items()}
        template = refer(options, lambda value, reference: listed.get(value, value))
        seed = template.pop("seed_everything", None)
        filled.pop("seed_everything", None)
        try:
            resolved = self._resolve([*_config(files), *_arguments(template), *self.given], where)
        except InputError as error:
            said = re.sub(r"needs-(\d+)", lambda found: [*paths][int(found[1])], str(error))
            raise InputError(said) from error
        options = _replace(resolved.config.options, {mark: paths[value] for value, mark in marks.items()})
        if seed is not None and not any(a.startswith("--seed_everything") for a in self.given):
            options["seed_everything"] = seed
        config = resolved.config.replaced(options)
        mark = config.id(lambda folder: self.identities.get(folder) or identity(folder))
        devices = _devices(options["trainer"].get("devices"))
        run = Planned(entry, variables, [], mark, Path(), resolved.trains, devices, needs)
        name = re.sub(r"[^\w.=-]+", "_", run.name).encode()[:LONGEST_NAME].decode(errors="ignore") + f"-{mark[:8]}"
        run.folder = resolved.stem / name
        what = named(run.folder, mark)
        twins = self.planned.setdefault(what, [])
        if twin := next((twin for twin in twins if twin.entry == entry), None):
            raise InputError(
                f"{where}: {twin.variables} and {variables} come to the same run: use the variables in an option "
                "({name}), or name one of them seed"
            )
        if twins:  # another entry's run, under another name: done when that is
            run.same_as = twins[0]
            run.needs, run.folder, run.arguments = [*needs, twins[0]], twins[0].folder, twins[0].arguments
        else:
            run.folder = self.finished.get(what, run.folder)
            run.arguments = ["fit", *_config(files), *_arguments(filled), *self.given]
            if seed is not None:  # a --config among what was given has a seed too
                run.arguments.append(f"--seed_everything={config.seed}")
            run.arguments += ["--log_dir", self.log_dir, "--name", name, "--ckpt_path", "auto"]
        twins.append(run)
        self.identities[run.folder] = what
        return run

    def _resolve(self, arguments: list[str], where: str) -> Resolved:
        key = json.dumps(arguments)
        if key not in self.resolved:
            try:
                self.resolved[key] = self.resolve(["fit", *arguments, "--log_dir", self.log_dir])
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
        return self.resolved[key]

    def _needed(self, reference: re.Match, variables: dict[str, Any], where: str) -> tuple[list[Planned], bool]:
        """The runs that a reference stands for, and whether there could be several."""
        name, _, restriction = reference.groups()
        wanted = {k: v for k, v in variables.items() if k in self.entries[name][0].variables}
        for part in filter(None, (restriction or "").split(",")):
            key, _, value = (word.strip() for word in part.partition("="))
            if key not in self.entries[name][0].variables:
                raise InputError(
                    f"{where}: {name} has no variable {key}{nearest(key, self.entries[name][0].variables)}"
                )
            wanted[key] = yaml.safe_load(value)
        found = [run for run in self.entries[name] if all(run.variables[k] == v for k, v in wanted.items())]
        if not found:
            values = ", ".join(f"{k} {v}" for k, v in wanted.items())
            raise InputError(
                f"{where} needs {name} with {values}, which is no run of this study: where all need the same one, write "
                f"${{{name}: {next(iter(wanted), 'variable')}=value}}"
            )
        if not found[0].trains:
            raise InputError(f"{where} needs {name}, which leaves no checkpoint: name its members")
        return found, bool(self.entries[name][0].variables.keys() - wanted.keys())


def _devices(asked: Any) -> int | None:
    """How many GPUs a run asks for, -1 for all, as Lightning reads it; None where it names them itself."""
    if isinstance(asked, list) or "," in str(asked):
        return None
    return int(asked) if re.fullmatch(r"-?\d+", str(asked)) else 1


def _references(value: Any) -> Iterator[tuple[str, str | None, str | None]]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _references(one)
    elif isinstance(value, str) and (found := REFERENCE.fullmatch(value)):
        yield found.groups()
    elif isinstance(value, str) and "${" in value:
        raise InputError(f'"{value}" is no reference: write ${{run}}, ${{run/best}} or ${{run: variable=value}} alone')


def _listed(new: Any, old: Any) -> list[Any]:
    """A reference within a list that stands for several becomes several."""
    return new if isinstance(new, list) and not isinstance(old, list) else [new]


def _replace(value: Any, paths: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {k: _replace(v, paths) for k, v in value.items()}
    if isinstance(value, list):
        return [one for v in value for one in _listed(_replace(v, paths), v)]
    return paths.get(value, value) if isinstance(value, str) else value


def _config(files: list[str]) -> list[str]:
    return [word for file in files for word in ("--config", file)]


def _arguments(options: dict[str, Any]) -> list[str]:
    """As words of a command; what YAML reads as a date is a word like any other."""
    plain = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in options.items()}
    return [f"--{key}={value}" for key, value in plain.items()]


def finished_runs(log_dir: Path) -> dict[str, Path]:
    """The folder of every finished run, by its identity."""
    found: dict[str, Path] = {}
    for summary in sorted(log_dir.glob("*/*/[!.]*/summary.json")):
        try:
            found.setdefault(named(summary.parent, json.loads(summary.read_text())["config_digest"]), summary.parent)
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return found


# Running


class Machine:
    """Runs what is to be run, several at a time.

    Args:
        plan: whose runs.
        jobs: how many at once.
        folder: for their output.
        devices: GPUs to share out, by name; empty for none.
    """

    def __init__(self, plan: Plan, jobs: int, folder: Path, devices: list[str]) -> None:
        self.runs, self.jobs, self.folder, self.devices = plan.runs, jobs, folder, devices
        self.slots = list(range(jobs))
        self.slot_of: dict[int, int] = {}
        self.said_before: dict[int, int] = {}
        self.took: dict[str, list[float]] = {}
        self.looked = 0.0
        self.signal = 0
        self.console = Console(stderr=True)

    def run(self) -> int:
        """Returns the signal that ended it, 0 for none."""
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as under nohup
        handlers = {number: signal.signal(number, self._on_signal) for number in heeded}
        live = Live(console=self.console, refresh_per_second=2, get_renderable=self._picture)
        try:
            if self.console.is_terminal:
                live.start()
            while self._turn():
                time.sleep(POLL_S)
        finally:
            self._end_all()
            if live.is_started:
                live.stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.signal

    def _of(self, *states: str) -> list[Planned]:
        return [run for run in self.runs if run.state in states]

    def _on_signal(self, number: int, frame: Any) -> None:
        """Once: each run saves after its running step, and leaves. Twice: at once."""
        first, self.signal = not self.signal, number
        for run in self._of("running"):
            if first:
                run.process.send_signal(_passed_on(number))
            else:
                _kill(run.process)

    def _end_all(self) -> None:
        """Where something unforeseen ends the study, its runs save and leave too."""
        running = [run.process for run in self._of("running")]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                _kill(process)

    def _turn(self) -> bool:
        """One look at everything. Whether there is anything left to do."""
        for run in self._of("running"):
            if run.process.poll() is not None:
                self._ended(run)
        look = time.monotonic() - self.looked > 1.0
        for run in self._of("waiting", *(["elsewhere"] if look else [])):
            if not self.signal:
                self._consider(run)
        if look:
            self.looked = time.monotonic()
        return bool(self._of("running") or (not self.signal and self._of("waiting", "elsewhere")))

    def _consider(self, run: Planned) -> None:
        if run.finished():
            run.state = "done"
            if run.same_as is None:
                self.took.setdefault(run.entry, []).append(_seconds(run))
        elif any(need.state in ("failed", "blocked") for need in run.needs):
            run.state = "blocked"
        elif self.slots and all(need.state == "done" for need in run.needs):
            if Run(run.folder).busy():  # another study has it, or somebody by hand
                run.state = "elsewhere"
            else:
                self._start(run)

    def _start(self, run: Planned) -> None:
        slot = self.slots.pop(0)
        env = dict(os.environ) | {OF_STUDY: str(os.getpid())}
        env.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self.jobs)))
        if self.devices and run.devices is not None:  # one each, unless a run asks for more, whatever --jobs is
            count = run.devices if run.devices >= 0 else len(self.devices)
            names = [self.devices[(slot * count + n) % len(self.devices)] for n in range(count)]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(names))
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self._log(run), "a") as log:
            command = [sys.executable, "-m", "distill_lightning", *run.arguments]
            # a session of its own: what the terminal sends on Ctrl-C reaches it once, through this process
            run.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env
            )
            self.said_before[run.process.pid] = log.tell()
        self.slot_of[run.process.pid] = slot
        run.state, run.started = "running", time.monotonic()
        if self.signal:  # it came meanwhile
            run.process.send_signal(_passed_on(self.signal))

    def _ended(self, run: Planned) -> None:
        self.slots = sorted([*self.slots, self.slot_of.pop(run.process.pid)])
        took = time.monotonic() - run.started
        if run.finished():
            run.state = "done"
            self.took.setdefault(run.entry, []).append(took)
            self._say(f"done    {run.folder}  {took:.0f} s")
        elif self.signal:
            run.state = "waiting"
        elif Run(run.folder).busy():  # it has come in between
            run.state = "elsewhere"
        else:
            run.state = "failed"
            self._say(f"failed  {run.name}: {self.last_words(run)}")

    def _log(self, run: Planned) -> Path:
        return self.folder / f"{run.folder.name}.log"

    def last_words(self, run: Planned) -> str:
        """The error that a run ended with, this time."""
        with open(self._log(run), errors="replace") as log:
            log.seek(self.said_before[run.process.pid])
            lines = log.read().splitlines()
        status = run.process.returncode
        words = next((line for line in reversed(lines) if line.startswith("distill:")), None)
        return words or (f"killed by signal {-status}" if status < 0 else f"status {status}")

    # What is shown

    def _left(self) -> str:
        known = [seconds for times in self.took.values() for seconds in times]
        if not known:
            return ""
        mean = sum(known) / len(known)
        expected = {entry: sum(times) / len(times) for entry, times in self.took.items()}
        now = time.monotonic()
        left = sum(expected.get(run.entry, mean) for run in self._of("waiting", "elsewhere"))
        left += sum(max(0.0, expected.get(run.entry, mean) - (now - run.started)) for run in self._of("running"))
        minutes = left / self.jobs / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"

    def status(self) -> str:
        """Runs done, running, time left."""
        words = f"{len(self._of('done'))} of {len(self.runs)} runs done"
        for state in ("running", "elsewhere", "failed", "blocked"):
            if count := len(self._of(state)):
                words += f", {count} {state}"
        return words + (self._left() if self._of("waiting", "elsewhere", "running") else "")

    def _picture(self) -> str:
        now = time.monotonic()
        lines = [f"  {run.name}  {now - run.started:.0f} s" for run in self._of("running")]
        waiting = [f"  {run.name}  trained by another process" for run in self._of("elsewhere")]
        return "\n".join([self.status(), *lines, *waiting])

    def _say(self, line: str) -> None:
        if self.console.is_terminal:
            self.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(f"{line}  ({self.status()})", file=sys.stderr, flush=True)


def _seconds(run: Planned) -> float:
    return json.loads((run.folder / "summary.json").read_text()).get("wall_time_s", 0.0)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _passed_on(number: int) -> int:
    """What a run understands."""
    return number if number in (signal.SIGINT, signal.SIGTERM) else signal.SIGTERM


def _kill(process: subprocess.Popen) -> None:
    """With the processes that it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


# The command


def main(args: list[str], resolve: Resolve, devices: Callable[[], list[str]]) -> int:
    """``distill study``. Returns the exit status: 0, 1 where a run failed, 128 + n when ended by signal n."""
    parser = LineParser(
        prog="distill study",
        description="Run what is missing of a study's runs, in order, and make its tables.",
        epilog="Any other option goes to every run: --data.root DIR, say, or --trainer.accelerator gpu.",
        allow_abbrev=False,
    )
    parser.add_argument("study", type=Path, help="the YAML")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; cores and GPUs are shared out among them")
    parser.add_argument("--dry_run", action="store_true", help="print the plan, as a script of commands, and stop")
    parser.add_argument("--log_dir", default="logs", help="the folder that runs go to")
    given, options = parser.parse_known_args(args)
    if given.jobs < 1:
        raise InputError(f"--jobs is {given.jobs}: it must be 1 or more")
    plan = Plan(given.study, given.log_dir, resolve, options)
    variables = {name: [run.variables for run in runs] for name, runs in plan.entries.items()}
    Check(plan.path, variables).study(plan.study)
    if given.dry_run:
        print(script(plan))
        return 0
    folder = Path(given.log_dir) / "studies" / given.study.stem
    machine = Machine(plan, given.jobs, folder / "output", devices())
    ended_by = machine.run()
    print(machine.status())
    if ended_by:
        print("the same command goes on from here", file=sys.stderr)
        return 128 + ended_by
    failed, blocked = machine._of("failed"), machine._of("blocked")
    print(write_tables(plan.study, plan.entries, given.study, folder))
    for run in failed:
        print(f"failed: {run.name}: {machine.last_words(run)} (all of it: {machine.folder / run.folder.name}.log)")
    for run in blocked:
        print(f"not run, for what it needs has failed: {run.name}")
    return 1 if failed or blocked else 0


def script(plan: Plan) -> str:
    """The plan as commands in an order that works; what is done is a comment."""
    done = [run for run in plan.runs if run.finished()]
    lines = [f"# {plan.path}: {len(plan.runs)} runs, {len(done)} done"]
    for run in plan.runs:
        if run in done:
            lines.append(f"# done: {run.folder}")
        elif run.same_as is not None:
            lines.append(f"# {run.name}: the same as {run.same_as.name}")
        else:
            needs = "".join(f"\n#   needs {need.folder}" for need in run.needs if need not in done)
            begun = " (begun)" if run.folder.is_dir() else ""
            lines.append(f"# {run.name}{begun}{needs}\n{run.command()}")
    return "\n".join(lines)
