"""Threads of which one runs at a time, and which meet.

Each job has a thread, because a thread has a stack of its own: a job can stop in the middle of a training step, while
the others come to the same point. Only one thread runs at a time, in the order of the jobs, so that the same jobs
always do the same. What belongs to the process and not to a thread (the seed of the run, the generators of torch, NumPy
and Python, torch's default type of numbers) is changed with each turn: each job finds what it has left.
"""

import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

SEED = "PL_GLOBAL_SEED"
"""The environment variable in which Lightning keeps the seed of the run."""


class ProcessState:
    """The seed of a run, the states of the generators, and the default type of numbers, as they are now."""

    def __init__(self) -> None:
        self._seed = os.environ.get(SEED)
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        self._numpy = np.random.get_state()  # noqa: NPY002  # a user's class may draw from it
        self._python = random.getstate()
        self._dtype = torch.get_default_dtype()

    def restore(self) -> None:
        """Sets all of it again."""
        os.environ.pop(SEED, None)
        if self._seed is not None:
            os.environ[SEED] = self._seed
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)
        torch.set_default_dtype(self._dtype)


class Turns:
    """Runs jobs by turns.

    Args:
        starts: the state of the process that each job starts with.
        serve: is called when all jobs that are not over wait, in the thread of one of them. It gets what each of them
            asks, by number, and gives the answers to some of them, one at least. An error is raised in every job that
            waits.
    """

    def __init__(self, starts: Sequence[ProcessState], serve: Callable[[dict[int, Any]], Mapping[int, Any]]) -> None:
        self._serve = serve
        self._states = list(starts)
        self._go = [threading.Event() for _ in starts]
        self._ready = set(range(len(starts)))
        self._asked: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}
        self._outcomes: list[Any] = [None] * len(starts)
        self._threads: list[threading.Thread] = []

    def run(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Runs the jobs to their ends.

        Returns:
            What each job returns, or the exception that has ended it.
        """
        before = ProcessState()
        self._threads = [threading.Thread(target=self._run, args=one, daemon=True) for one in enumerate(jobs)]
        for thread in self._threads:
            thread.start()
        self._give_turn()
        for thread in self._threads:
            thread.join()  # signals are handled meanwhile, in the main thread
        before.restore()
        return self._outcomes

    def meet(self, number: int, question: Any) -> Any:
        """Waits until all other jobs wait, too, and returns the answer of ``serve``. For the job with this number.

        Raises:
            BaseException: what ``serve`` has raised.
        """
        self._states[number] = ProcessState()
        self._ready.discard(number)
        self._asked[number] = question
        self._give_turn()
        self._wait(number)
        while number in self._asked:  # all wait, and this one serves: what belongs to a thread is as the jobs need it
            self._serve_all()
            self._give_turn()
            self._wait(number)
        answer = self._answers.pop(number)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self, number: int, job: Callable[[], Any]) -> None:
        self._wait(number)
        try:
            self._outcomes[number] = job()
        except BaseException as error:  # SystemExit, too: a run ends so when it has saved its checkpoint after a signal
            self._outcomes[number] = error
        self._ready.discard(number)
        self._give_turn()

    def _wait(self, number: int) -> None:
        self._go[number].wait()
        self._go[number].clear()
        self._states[number].restore()

    def _give_turn(self) -> None:
        """Lets the next job run; if all wait, the first of them, which serves."""
        if waiting := self._ready or self._asked.keys():
            self._go[min(waiting)].set()

    def _serve_all(self) -> None:
        try:
            answers = dict(self._serve(dict(self._asked)))
        except BaseException as error:
            answers = dict.fromkeys(self._asked, error)
        for number in answers:
            del self._asked[number]
        self._answers |= answers
        self._ready |= answers.keys()
