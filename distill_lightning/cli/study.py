"""``distill study FILE``: trains the runs of a study that are missing, and writes its tables."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from distill_lightning.cli.several_runs import parsed, parser_of, queue_of, workers_of
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.files import atomic_write
from distill_lightning.report.check import SpecChecker
from distill_lightning.report.figure_builder import build_figure
from distill_lightning.report.page import Page
from distill_lightning.report.results import Results
from distill_lightning.report.specification import FigureSpec, TableSpec
from distill_lightning.report.table_builder import build_table
from distill_lightning.report.tables import Table
from distill_lightning.studies import (
    Display,
    PlannedRun,
    Resolve,
    StudyPlan,
    plan_study,
    read_study,
    status_line,
    write_record,
)
from distill_lightning.studies.training import Training
from distill_lightning.studies.workers import job_script


def main(args: list[str], resolve: Resolve, gpus: Callable[[], list[str]]) -> int:
    """Runs the command.

    Args:
        args: the words after ``study``.
        resolve: resolves the arguments of a run.
        gpus: gives the names of the GPUs to share, as CUDA_VISIBLE_DEVICES takes them.

    Returns:
        The exit status: 0; 1 if a run failed; 128 + n if signal n ended the study.

    Raises:
        InputError: an option or the study is wrong.
    """
    parser = parser_of("study", "studies", "quick", OTHER_VERBS["study"])
    script = "print the plan as a script, or with --cluster the script of a job, and train nothing"
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry_run", action="store_true", help=script)
    tables_only = "make the tables from the runs that are finished, and train nothing"
    instead.add_argument("--tables_only", action="store_true", help=tables_only)
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FOLDER",
        help="keep the results of finished runs here, without weights; what is here is not trained again",
    )
    given, options, file = parsed(parser, args)
    study = read_study(file)
    plan = plan_study(study, given.log_dir, resolve, options, given.records, will_train=not given.tables_only)
    checker = SpecChecker(study.path, plan.variables)
    tables, figures = checker.tables(study.tables), checker.figures(study.figures)
    folder = Path(given.log_dir) / "studies" / given.file.stem
    needed = [run.resources for run in plan.runs]
    if given.dry_run:
        print(job_script(queue_of(given, needed, folder)) if given.cluster else plan.script())
        return 0
    if given.tables_only:
        print(write_tables(plan, tables, figures, folder))
        return 0

    def record(run: PlannedRun) -> None:
        if given.records is not None and given.records.absolute() not in run.folder.absolute().parents:
            try:
                write_record(run.folder, given.records)
            except (OSError, ValueError) as error:  # the run is finished, and others need not wait
                print(f"{run.folder} has no record: {error}", file=sys.stderr)

    with workers_of(given, needed, gpus, folder) as workers:
        training = Training(plan.runs, workers, folder / "output", Display(), record)
        ended_by = training.run()
    print(status_line(training.snapshot()))
    if ended_by:
        print("the same command goes on from here", file=sys.stderr)
        return 128 + ended_by
    failed, blocked = training.in_state("failed"), training.in_state("blocked")
    print(write_tables(plan, tables, figures, folder))
    for run in failed:
        print(f"failed: {run.name}: {training.last_words(run)} (all of it: {training.log(run)})")
    for run in blocked:
        print(f"not run, for what it needs has failed: {run.name}")
    return 1 if failed or blocked else 0


def write_tables(plan: StudyPlan, tables: Sequence[TableSpec], figures: Sequence[FigureSpec], folder: Path) -> str:
    """Writes tables.md, a CSV file for each table, an SVG file for each figure, and report.html.

    Args:
        plan: the plan of the study. Its finished runs give the numbers.
        tables: the tables to write.
        figures: the figures to write.
        folder: the folder to write to.

    Returns:
        Text for the terminal: the tables in Markdown, the columns without any number, and the path of the page.
    """
    results = Results(
        {entry: [(run.variables, run.folder) for run in runs] for entry, runs in plan.entries.items()}, tables
    )
    built = [build_table(spec, results) for spec in tables]
    pictures = [build_figure(spec, results) for spec in figures]
    text = "\n".join(table.to_markdown() for table in built)
    finished = f"{results.finished} of {results.planned} runs are finished"
    lead = f"{plan.path.name}: {finished}. Mean ± standard deviation, unless said otherwise."
    groups = [group for group in results.groups() if group.records]
    title = plan.path.stem.replace("_", " ").capitalize()

    def write(name: str, content: str) -> None:
        atomic_write(folder / name, lambda file: file.write(content.encode(errors="replace")))

    write("tables.md", text)
    for number, table in enumerate(built, start=1):
        write(f"table_{number}.csv", table.to_csv())
    for number, picture in enumerate(pictures, start=1):
        write(f"figure_{number}.svg", picture.svg())
    write("report.html", Page(title, lead, groups, tables=built, figures=pictures).html())
    missing = [f"no run has {column}" for table in built for column in _empty_columns(table) if results.finished]
    return "\n".join([*map(str, built), *missing, f"report: {folder / 'report.html'}"])


def _empty_columns(table: Table) -> list[str]:
    """The columns without a number in any row."""
    columns = dict.fromkeys(str(cell[1]) for cell in table.numbers)
    return [column for column in columns if not any(cell[-2] for cell in table.numbers if cell[1] == column)]
