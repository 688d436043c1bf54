"""Which package may import which, and names that no file may use: private names of Lightning, ``__dict__`` of
others."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "distill_lightning"
GROUND = {
    "html_tables",
    "recorded",
    "version",
    "environment",
    "errors",
    "signatures",
    "kinds",
    "ranges",
    "discovery",
    "files",
    "seeds",
    "orders",
    "values",
    "digests",
    "lightning_internals",
    "distributed",
    "preprocessing",
}
PURE = {
    "clusters",
    "confusion",
    "depth_figures",
    "diversity",
    "joint",
    "losses",
    "masks",
    "schedules",
    "schedulers",
    "metrics",
    "plots",
    "feature_hooks",
    "frozen_copies",
    "moving_average",
}
DATA = GROUND | {"pillow_decoding", "models", "weights", "checkpoints", "data"}
METHODS = (
    DATA | PURE | {"features", "token_maps", "networks", "teachers", "optimizers", "initializers", "learning_rates"}
)
METHODS |= {"running_means", "evaluation"}
MAY_IMPORT = {
    # the ground
    "version": set(),
    "__init__": {"version"},
    "errors": set(),
    "signatures": set(),
    "kinds": set(),
    "ranges": {"errors", "kinds", "signatures"},
    "environment": {"version"},
    "discovery": set(),
    "seeds": set(),
    "orders": {"seeds"},
    "digests": set(),
    "html_tables": set(),
    "recorded": {"ranges"},
    "files": {"errors"},
    "config_files": {"errors", "files"},
    "distributed": {"errors", "files"},
    "preprocessing": {"digests", "distributed", "errors", "ranges", "recorded", "seeds", "signatures"},
    "values": {"errors", "preprocessing"},
    "lightning_internals": {"errors", "values"},
    # predictions without torch
    "predictions": {"html_tables"},
    "pillow_decoding": set(),
    "pillow_pixels": {"errors", "pillow_decoding"},
    "exported": {"errors", "pillow_decoding", "pillow_pixels", "predictions"},
    # pure functions, and what holds tensors
    "losses": set(),
    "masks": set(),
    "diversity": set(),
    "metrics": {"losses", "diversity"},
    "joint": set(),
    "clusters": {"errors", "seeds"},
    "confusion": set(),
    "plots": set(),
    "temperature": {"losses", "plots"},
    "depth_figures": set(),
    "feature_hooks": set(),
    "frozen_copies": set(),
    "moving_average": set(),
    "optimizers": {"errors", "recorded"},
    "initializers": {"errors", "ranges", "recorded", "seeds"},
    "schedules": {"errors", "ranges", "recorded"},
    "schedulers": {"errors", "recorded", "ranges"},
    "learning_rates": {"errors", "optimizers", "schedules", "schedulers"},
    "running_means": {"distributed", "values"},
    "evaluation": {"metrics", "confusion"},
    # networks and files
    "tensor_files": {"errors", "files"},
    "weights": {"errors", "distributed", "tensor_files"},
    "models": {"errors", "ranges", "discovery", "distributed", "weights", "joint"},
    "networks": {"errors", "models"},
    "features": {"errors", "feature_hooks", "models"},
    "token_maps": {"errors"},
    "specs": {"errors", "signatures", "files", "recorded", "models"},
    "checkpoints": {"errors", "ranges", "recorded", "files", "values", "digests", "distributed", "weights", "specs"}
    | {"tensor_files", "models", "preprocessing"},
    # data and teachers
    "data": (GROUND - {"lightning_internals"}) | {"pillow_decoding"},
    "soft_targets": {"errors", "files"},
    "teachers": {"errors", "values", "digests", "features", "models", "checkpoints", "data", "preprocessing"},
    # training
    "methods": METHODS,
    "callbacks": METHODS | {"methods", "soft_targets", "tensor_files"},
    "lottery": METHODS | {"methods", "tensor_files"},
    "callbacks.lottery": METHODS | {"methods", "tensor_files", "callbacks", "lottery"},
    "theory": {"errors", "ranges", "seeds", "checkpoints", "data", "diversity"},
    # runs
    "runs": {"environment", "errors", "files"},
    "doctor": {"errors", "plots", "runs"},
    "loggers": {"files", "runs"},
    "trackers": {"errors", "lightning_internals"},
    "bench": {"lightning_internals", "data", "methods"},
    "bench_stages": {"data", "methods"},
    "training": METHODS
    | {"predictions", "methods", "callbacks", "callbacks.lottery", "files", "runs", "doctor", "loggers", "trackers"}
    | {"specs", "version"},
    "members": {"environment", "errors", "methods", "callbacks", "training"},
    # files for other programs
    "narrowing": {"errors", "models"},
    "exporting": DATA | {"pillow_pixels", "exported", "specs", "teachers", "methods", "runs", "version"},
    "classifier": {
        "errors",
        "values",
        "predictions",
        "pillow_decoding",
        "pillow_pixels",
        "data",
        "exported",
        "exporting",
        "specs",
    },
    # what reads runs
    "studies": {"environment", "errors", "files", "config_files", "runs"},
    "report": {"errors", "files", "runs", "plots", "depth_figures", "doctor"},
    "search": {"errors", "files", "config_files", "runs", "studies", "plots", "report"},
    "channels": {"errors", "data", "features", "exporting", "plots", "report"},
    "catalogue": {"html_tables", "errors", "files", "config_files", "runs", "report"},
}
"""Rooms from the ground up: each may import from those above it in this table that it names, and from itself. The
command (cli, and __main__ before it) may import from all."""
COMMAND = {"cli", "__main__"}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(dotted: str) -> str:
    """The room of a module, by its name within the package."""
    first, _, rest = dotted.partition(".")
    longer = f"{first}.{rest.partition('.')[0]}"
    return longer if longer in MAY_IMPORT else first


@functools.cache
def nodes(source: str) -> list[ast.AST]:
    """All nodes of a source, which several tests read."""
    return list(ast.walk(ast.parse(source)))


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, inside functions too."""
    found = set()
    for node in nodes(path.read_text()):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_table_itself_points_downwards():
    below: set[str] = set()
    for room, may in MAY_IMPORT.items():
        assert may <= below, room
        below.add(room)


def test_every_file_has_a_room_and_every_room_a_file():
    rooms = {room_of(name_of(path).removesuffix(".py").replace("/", ".")) for path in FILES}
    assert rooms == MAY_IMPORT.keys() | COMMAND


def test_imports_point_downwards():
    upwards = {}
    for path in FILES:
        room, names = room_of(name_of(path).removesuffix(".py").replace("/", ".")), imports(path)
        inside = [name.removeprefix("distill_lightning.") for name in names if name.startswith("distill_lightning.")]
        if room not in COMMAND:
            found = {room_of(name) for name in inside} - MAY_IMPORT[room] - {room} | names & {"distill_lightning"}
            upwards[name_of(path)] = found
    assert {name: found for name, found in upwards.items() if found} == {}
    assert not any(name.startswith("pytorch_lightning") for name in names)


PLAIN = [
    "errors",
    "files",
    "seeds",
    "orders",
    "values",
    "digests",
    "losses",
    "masks",
    "schedules",
    "feature_hooks",
    "frozen_copies",
    "moving_average",
]
PLAIN += ["optimizers", "soft_targets", "weights"]
HEAVY = {"lightning", "torchvision", "torchmetrics", "jsonargparse", "rich", "sklearn"}


@pytest.mark.parametrize("name", PLAIN)
def test_the_lowest_rooms_need_torch_and_numpy_alone(name):
    files = [PACKAGE / f"{name}.py", *(PACKAGE / name).glob("*.py")]
    outside = {n.split(".")[0] for path in files if path.is_file() for n in imports(path)}
    assert outside & HEAVY == set()


@pytest.mark.parametrize("name", ["predictions", "pillow_decoding", "pillow_pixels", "exported"])
def test_an_exported_file_predicts_with_numpy_pillow_and_onnxruntime(name):
    outside = {n.split(".")[0] for n in imports(PACKAGE / f"{name}.py")} - set(sys.stdlib_module_names)
    assert outside <= {"numpy", "PIL", "onnxruntime", "distill_lightning"}


def test_networks_are_plain_modules():
    for path in (PACKAGE / "models").glob("*.py"):
        outside = {n.split(".")[0] for n in imports(path)}
        assert outside & HEAVY <= {"torchvision"}, path


SHARED_BY_METHODS = {
    "base": {"checks", "evaluated", "foreign_callbacks", "insights", "memory", "optimization", "plain_batches"},
    "optimization": {"foreign_callbacks"},
    "foreign_callbacks": set(),
    "taught": {"base"},
    "feature_taught": {"taught"},
    "classifier_taught": {"evaluated", "feature_taught"},
    "branched": {"base"},
    "peers": {"base", "checks"},
    "untrained": {"base"},
    "evaluated": {"plain_batches"},
    "checks": set(),
    "memory": set(),
    "insights": set(),
    "plain_batches": set(),
}


OF_METHODS = {
    "base", "branched", "checks", "classifier_taught", "evaluated", "feature_taught", "memory", "peers", "taught",
    "untrained",
}  # fmt: skip


def test_no_method_imports_its_sibling():
    for path in (PACKAGE / "methods").glob("[!_]*.py"):
        siblings = {n.split(".")[2] for n in imports(path) if n.startswith("distill_lightning.methods.")}
        assert siblings <= SHARED_BY_METHODS.get(path.stem, OF_METHODS), path


def modules_of(room: str) -> dict[str, set[str]]:
    """What each module of a room imports of its own room, by the modules' names."""
    prefix = f"distill_lightning.{room}."
    names = {path.stem for path in (PACKAGE / room).glob("*.py")}
    imported = {name: imports(PACKAGE / room / f"{name}.py") for name in names}
    within = {name: {n.removeprefix(prefix).split(".")[0] for n in given} for name, given in imported.items()}
    return {name: given & names - {"__init__"} for name, given in within.items()}


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_no_circles_within_a_room(room):
    left = modules_of(room)
    while left:
        free = {name for name, needs in left.items() if not needs & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


def test_a_plan_does_not_know_who_carries_it_out():
    above = {"training", "workers", "queues", "task", "process", "display", "snapshot"}
    within = modules_of("studies")
    assert not within["plan"] & above and not within["reading"] & (above | {"plan"})
    assert not within["display"] & {"training", "workers", "task", "plan"}


WITHOUT_TORCH = [
    "cli.report",
    "cli.study",
    "cli.search",
    "report.page",
    "report.table_builder",
    "report.figure_builder",
    "studies",
]
WITHOUT_TORCH += ["runs", "plots", "errors", "files", "cli.configs", "config_files", "cli.list", "cli.show"]
WITHOUT_TORCH += ["catalogue", "doctor", "cli.doctor", "search"]
ONLY_TO_WRITE = {"plotly", "matplotlib", "jinja2"}
"""What is only imported when a page or a picture is written."""


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_reads_runs_does_not_wait_for_torch(module):
    slow = {"torch", "lightning"} | ONLY_TO_WRITE
    if module in ("cli.study", "cli.search"):
        slow -= {"jinja2"}  # dask imports it
    code = f"import sys, distill_lightning.{module}; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Private names

OF_LIGHTNING = {
    "trainer",
    "fit_loop",
    "epoch_loop",
    "loop",
    "strategy",
    "connector",
    "pl_module",
    "lightning_module",
    "pl",
}


OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
"""Which are public, in spite of their names."""


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in OF_NAMED_TUPLES


def names_of_its_own(source: str) -> set[str]:
    """Private names that a file defines: functions, classes, fields, and attributes that are set on ``self`` or
    ``cls``."""
    own = set()
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        for target in [*getattr(node, "targets", []), getattr(node, "target", None)]:
            for part in ast.walk(target) if target is not None else []:
                if isinstance(part, ast.Name):
                    own.add(part.id)
                elif (
                    isinstance(part, ast.Attribute)
                    and isinstance(part.value, ast.Name)
                    and part.value.id in ("self", "cls")
                ):
                    own.add(part.attr)
    return {name for name in own if private(name)}


def from_elsewhere(source: str) -> set[str]:
    """Names that stand for modules and classes of neither Lightning nor this package."""
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                origin = alias.name if isinstance(node, ast.Import) else str(node.module)
                if origin.split(".")[0] not in (
                    "lightning",
                    "pytorch_lightning",
                    "lightning_fabric",
                    "distill_lightning",
                ):
                    found.add((alias.asname or alias.name).split(".")[0])
    return found


def chain(node: ast.expr) -> list[str]:
    """The names in ``a.b(c).d[e]``, from the left: a, b, d."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*chain(node.value), node.attr]
    if isinstance(node, ast.Call):
        return chain(node.func)
    return chain(node.value) if isinstance(node, ast.Subscript) else []


def private_names_touched(source: str) -> set[str]:
    """Private names of others than the file itself, torch and the standard library: as attributes, by ``getattr`` and
    its like, and imported."""
    own, elsewhere, found = names_of_its_own(source), from_elsewhere(source), set()
    for node in nodes(source):
        on, name = None, None
        if isinstance(node, ast.Attribute):
            on, name = node.value, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr") and isinstance(node.args[1], ast.Constant):
                on, name = node.args[0], node.args[1].value
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if private(alias.name)}
        if on is None or not isinstance(name, str) or not private(name):
            continue
        path = chain(on)
        if path and path[0] in elsewhere:
            continue  # torch._foreach_mul_, os._exit
        if name not in own or OF_LIGHTNING & set(path):
            found.add(name)
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(trainer): return trainer._signal_connector", {"_signal_connector"}),
        ("def f(trainer): return trainer.fit_loop.epoch_loop._should_accumulate()", {"_should_accumulate"}),
        ("def f(trainer): return getattr(trainer.strategy, '_layer_sync', None)", {"_layer_sync"}),
        ("class A:\n    def f(self): return self.trainer._logger_connector", {"_logger_connector"}),
        ("class A:\n    def f(self): return self._trainer is None", {"_trainer"}),
        ("from lightning.pytorch.trainer.call import _call_setup_hook", {"_call_setup_hook"}),
        ("import lightning.pytorch as pl\npl._logger", {"_logger"}),
        ("def f(trainer): trainer._own = 1; return trainer._own", {"_own"}),
        ("class A:\n    def __init__(self): self._own = 1\n    def f(self): return self._own", set()),
        ("class A:\n    _own: int\n    def f(self): return self._own", set()),
        (
            "class A:\n    def __init__(self): self._own, self.b = 1, 2\n    def f(self, other): return other._own",
            set(),
        ),
        (
            "class A:\n    def _own(self): pass\n    def f(self, trainer): return self._own() or trainer._own()",
            {"_own"},
        ),
        ("import torch\nfrom torch import nn\ntorch._foreach_mul_([])\nnn.modules.conv._ConvNd", set()),
        ("def f(a): return a.__class__.__name__", set()),
    ],
)
def test_private_names_are_found(source, found):
    assert private_names_touched(source) == found


def test_no_file_touches_a_private_name_of_lightning_or_of_another_file():
    """But lightning_internals.py, which is there for it."""
    found = {name_of(path): private_names_touched(path.read_text()) for path in FILES}
    assert {"_trainer", "_should_accumulate", "_signal_connector"} <= found.pop("lightning_internals.py")
    assert {name: touched for name, touched in found.items() if touched} == {}


CHANGE_A_DICT = ("update", "setdefault", "pop", "popitem", "clear", "__setitem__", "__delitem__", "__ior__")


def writes_into_a_dict(source: str) -> bool:
    """Whether anything is set, deleted or updated in ``x.__dict__`` or ``vars(x)``, or these are replaced."""

    def is_dict(node: ast.expr | None) -> bool:
        by_vars = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vars"
        return by_vars or (isinstance(node, ast.Attribute) and node.attr == "__dict__")

    for node in nodes(source):
        if isinstance(node, ast.Subscript) and is_dict(node.value) and not isinstance(node.ctx, ast.Load):
            return True
        if isinstance(node, ast.Attribute) and is_dict(node) and not isinstance(node.ctx, ast.Load):
            return True
        if isinstance(node, ast.AugAssign) and is_dict(node.target):
            return True
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_dict(node.func.value)
        if is_call and node.func.attr in CHANGE_A_DICT:
            return True
    return False


def test_writing_into_a_dict_is_found():
    for bad in (
        "a.__dict__['b'] = 1",
        "del a.b.__dict__['c']",
        "a.__dict__.update(b=1)",
        "a.__dict__ |= b",
        "vars(a)['b'] = 1",
    ):
        assert writes_into_a_dict(bad), bad
    for good in ("b = a.__dict__ | {'c': 1}", "print(vars(a)['b'])", "a.__dict__.get('b')", "b['c'] = a.__dict__['d']"):
        assert not writes_into_a_dict(good), good


def test_no_file_writes_into_a_dict():
    assert [name_of(path) for path in FILES if writes_into_a_dict(path.read_text())] == []
