"""The command ``distill``: runs a verb, and turns an error into one line and an exit status."""

import importlib
import io
import os
import signal
import sys
import sysconfig
import threading
import traceback
from types import FrameType

from distill_lightning.cli import verbs
from distill_lightning.errors import first_input_error

WITHOUT_TORCH = ("report", "configs", "list", "show", "doctor", "lr")
"""The verbs whose module, of the same name in ``cli``, answers at once, or imports torch itself after its checks."""
EXPORTED = (".onnx", ".pt2")
"""The ends of exported files. Those of ONNX are read where there may be no torch."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
received: list[int] = []
"""The signal that ends the command, if one has come; 0 when the command has ended by itself."""


class Stopped(SystemExit):
    """A signal ends the command. It is no KeyboardInterrupt, because Lightning turns that into the exit status 1."""


def main(args: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: the words after ``distill``. By default they are those of this process, which then also ends on SIGINT and
            SIGTERM, from now on to its end.

    Returns:
        The exit status: 0; 1 for an error; 2 for wrong input; 128 + n for signal n.
    """
    if args is not None:
        return _run(args)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file or a pipe may not have the letters of class names
        sys.stdout.reconfigure(errors="backslashreplace")
    _end_on_signals()  # first of all, because the imports of a verb take seconds
    try:
        status = _run(sys.argv[1:])
    except SystemExit as leaving:  # the parser, or a run that has saved its last checkpoint
        status = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    if status == 0 and (module := sys.modules.get("distill_lightning.distributed")) is not None:
        module.leave_group()
    if status > 128:  # a second signal must not change the status while the interpreter shuts down
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    received.append(0)  # a signal while the interpreter shuts down ends it at once
    return status


def _run(args: list[str]) -> int:
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
        if received:  # a library may turn Stopped into another error, when it comes in the middle of an import
            return 128 + received[0]
        if ours := first_input_error(error):
            return _fail(str(ours), 2)
        return _fail(f"{type(error).__name__}: {error}{_where(error)}", 1)


def _without_torch(args: list[str]) -> str | None:
    """The module in ``cli`` of a command that needs no torch; None if it needs it."""
    if args[0] == "predict" and len(args) > 1 and args[1].lower().endswith(EXPORTED):
        return "predict_exported"
    return args[0] if args[0] in WITHOUT_TORCH else None


def _end_on_signals() -> None:
    """Ends this process on SIGINT and SIGTERM: the first signal raises ``Stopped``, a later one ends it at once.

    During a fit, the callback RunCheckpoint handles the signals instead. An ignored signal stays ignored: a shell lets
    what it starts in the background ignore SIGINT.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        if received:  # an exception could end in the middle of the clean-up, or in the shutdown of the interpreter
            os._exit(128 + number)
        received.append(number)  # the line is not left to ``_run``, which a second signal would not let come so far
        os.write(sys.stderr.fileno(), f"distill: stopped by {signal.Signals(number).name}\n".encode())
        raise Stopped(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, leave)


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
    if (module := sys.modules.get("distill_lightning.distributed")) is not None:
        rank = module.rank()
    else:
        rank = next((int(os.environ[k]) for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if k in os.environ), 0)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(message.split()))
    if rank == 0:
        print(f"distill: {line}", file=sys.stderr)
    elif status == 1:
        print(f"distill: process {rank}: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
