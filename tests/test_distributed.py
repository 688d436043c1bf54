"""Collectives, with one process and with two."""

import json

import pytest
import torch
from helpers import on_two_processes

from distill_lightning import distributed


def test_alone_everything_is_the_obvious_thing():
    rows = torch.arange(6.0).reshape(3, 2)
    assert distributed.process_count() == 1 and distributed.is_first()
    assert distributed.gather_objects("a") == ["a"]
    assert distributed.gather_rows(rows) is rows
    assert distributed.sum_over_processes(rows) is rows
    assert distributed.largest(rows) is rows
    assert distributed.mean_over_processes(rows, 1.0).tolist() == [2.0, 3.0]
    assert distributed.from_first("a") == "a"
    assert distributed.from_first_into(rows) is rows
    assert distributed.first_decides(lambda: 3) == 3
    with pytest.raises(ValueError, match="why"):
        distributed.first_decides(lambda: (_ for _ in ()).throw(ValueError("why")))


TOGETHER = """
import json
import os
import torch
import torch.distributed as dist
from distill_lightning import distributed as d
from distill_lightning.errors import InputError

rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
said = {"count": d.process_count(), "first": d.is_first()}
said["objects"] = d.gather_objects({"rank": rank})
said["rows"] = d.gather_rows(torch.arange(2 * (rank + 1)).reshape(-1, 2) + 10 * rank).tolist()
mine = torch.tensor([1.0, 5.0 - 5 * rank])
said["sum"], said["largest"] = d.sum_over_processes(mine).tolist(), d.largest(mine).tolist()
said["kept"] = mine.tolist()
said["from_first"] = d.from_first(f"of {rank}")
said["into"] = d.from_first_into(torch.full((2,), float(rank))).tolist()

rows = torch.full((rank + 1, 1), float(rank + 1), requires_grad=True)  # one row of 1, two rows of 2
mean = d.mean_over_processes(rows, 1.0)
mean.square().sum().backward()
said["mean"], said["gradient"] = mean.tolist(), rows.grad.flatten().tolist()
rows = torch.full((1, 1), float(rank + 1), requires_grad=True)
mean = d.mean_over_processes(rows, 1.0 - rank)  # the second has nothing to do
mean.sum().backward()
said["mean_of_one"], said["gradient_of_one"] = mean.tolist(), rows.grad.flatten().tolist()

sliced = torch.full((3, 4), float(rank))
said["into_a_slice"] = d.from_first_into(sliced[:, 1:3]).tolist(), sliced.tolist()
d.refuse_different("other pictures", [1, "a"])
try:
    d.refuse_different("other pictures", ["a", rank])
except InputError as refused:
    said["different"] = str(refused)

asked = []
def decide():
    asked.append(rank)
    return {"rank": rank}
said["decided"], said["asked"] = d.first_decides(decide), asked
held = [1]
said["itself"] = d.first_decides(lambda: held) is held  # on the first, what it decided is not copied
for error in (InputError("refused"), ValueError("broken")):
    def fail():
        raise error
    try:
        d.first_decides(fail)
    except Exception as raised:
        said[str(error)] = f"{type(raised).__name__}: {raised}"
print(json.dumps(said))
dist.destroy_process_group()
"""


def test_two_processes():
    first, second = map(json.loads, on_two_processes(TOGETHER))
    assert (first.pop("first"), second.pop("first")) == (True, False)
    assert (first.pop("kept"), second.pop("kept")) == ([1.0, 5.0], [1.0, 0.0])  # what is given is not overwritten
    assert (first.pop("asked"), second.pop("asked")) == ([0], [])
    assert (first.pop("itself"), second.pop("itself")) == (True, False)
    assert first.pop("into_a_slice") == [[[0.0] * 2] * 3, [[0.0] * 4] * 3]
    assert second.pop("into_a_slice") == [[[0.0] * 2] * 3, [[1.0, 0.0, 0.0, 1.0]] * 3]
    # of (1 + 2 + 2) / 3, squared: each row has 2/3 of the mean, and each process asks for it
    assert first.pop("gradient") == pytest.approx([2 * 2 / 3 * 5 / 3])
    assert second.pop("gradient") == pytest.approx([2 * 2 / 3 * 5 / 3] * 2)
    assert (first.pop("gradient_of_one"), second.pop("gradient_of_one")) == ([2.0], [0.0])
    assert first == second
    assert first["count"] == 2
    assert first["objects"] == [{"rank": 0}, {"rank": 1}]
    assert first["rows"] == [[0, 1], [10, 11], [12, 13]]
    assert (first["sum"], first["largest"]) == ([2.0, 5.0], [1.0, 5.0])
    assert (first["from_first"], first["into"]) == ("of 0", [0.0, 0.0])
    assert first["different"] == "process 1 has other pictures than process 0: give the same files to all"
    assert first["mean"] == pytest.approx([5 / 3]) and first["mean_of_one"] == [1.0]
    assert first["decided"] == {"rank": 0}
    assert first["refused"] == "InputError: refused"
    assert first["broken"] == "RuntimeError: ValueError: broken"
