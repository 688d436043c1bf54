"""The command ``distill``: runs a verb, and turns an error into one line and an exit status."""

import os
import sys
import sysconfig
import traceback

from distill_lightning.errors import first_input_error


def main(args: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: the words after ``distill``; by default those of this process.

    Returns:
        The exit status: 0; 1 for an error; 2 for wrong input; 128 + n for signal n.
    """
    args = sys.argv[1:] if args is None else args
    try:
        if args[:1] == ["report"]:  # without the slow import of torch
            from distill_lightning.cli import report

            return report.main(args[1:])
        if args[:1] == ["configs"]:  # likewise
            from distill_lightning.cli import configs

            return configs.main(args[1:])
        if args[:1] == ["predict"] and args[1:2] and args[1].lower().endswith(".onnx"):  # where there may be no torch
            from distill_lightning.cli import predict_exported

            return predict_exported.main(args[1:])
        if args[:1] == ["list"]:
            from distill_lightning.cli import list as list_runs

            return list_runs.main(args[1:])
        if args[:1] == ["show"]:
            from distill_lightning.cli import show

            return show.main(args[1:])
        from distill_lightning.cli import app

        return app.main(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if ours := first_input_error(error):
            return _fail(str(ours), 2)
        return _fail(f"{type(error).__name__}: {error}{_where(error)}", 1)


def _where(error: Exception) -> str:
    """The last line of the user's own code in the traceback, in a method or network for example; empty if there is
    none.
    """
    libraries = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib", "stdlib")} | {os.path.dirname(__file__)}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if os.path.isfile(frame.filename)]
    own = [frame for frame in frames if not os.path.abspath(frame.filename).startswith(tuple(libraries))]
    return f" ({own[-1].filename}:{own[-1].lineno}; DISTILL_TRACEBACK=1 shows all)" if own else ""


def _fail(message: str, status: int) -> int:
    if os.environ.get("DISTILL_TRACEBACK"):
        traceback.print_exc()
    rank = next((int(os.environ[k]) for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if k in os.environ), 0)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(message.split()))
    if rank == 0:
        print(f"distill: {line}", file=sys.stderr)
    elif status == 1:
        print(f"distill: process {rank}: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
