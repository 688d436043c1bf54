"""The command ``distill``: runs a verb, and turns an error into one line and an exit status."""

import importlib
import os
import sys
import sysconfig
import traceback

from distill_lightning.cli import verbs
from distill_lightning.errors import first_input_error

WITHOUT_TORCH = ("report", "configs", "list", "show")
"""The verbs that answer at once; each is a module of the same name in ``cli``."""
EXPORTED = (".onnx",)
"""The ends of exported files that are read where there may be no torch."""


def main(args: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: the words after ``distill``; by default those of this process.

    Returns:
        The exit status: 0; 1 for an error; 2 for wrong input; 128 + n for signal n.
    """
    args = sys.argv[1:] if args is None else args
    try:
        status = verbs.answer(args)
        if status is not None:
            return status
        if (module := _without_torch(args)) is not None:
            return int(importlib.import_module(f"distill_lightning.cli.{module}").main(args[1:]))
        from distill_lightning.cli import app  # which imports torch and Lightning: seconds

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


def _without_torch(args: list[str]) -> str | None:
    """The module in ``cli`` of a command that needs no torch; None if it needs it."""
    if args[0] == "predict" and len(args) > 1 and args[1].lower().endswith(EXPORTED):
        return "predict_exported"
    return args[0] if args[0] in WITHOUT_TORCH else None


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
