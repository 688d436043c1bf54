"""Decides which classes a file may use, and builds networks from specifications.

A specification is plain data: ``{"class_path": "package.Class", "init_args": {...}}``. If it comes from a file (a
checkpoint, or a configuration that the program finds by itself), all of it is checked before anything is imported:

- A class path must be on the list of its kind (``lists``). The lists hold the networks of this package, of torchvision
  and of timm; torch's optimizers and schedulers; this package's data modules, transforms, methods and callbacks; and
  the callbacks of Lightning that neither write files nor open connections.
- Arguments must be plain data of the types that the class declares (``arguments``), at every depth (``check``). A
string
  in the place of a class is refused, because a parser could take it for a file, an address or a name to import.
- A network may not need much more memory than the weights in the file (``allocation``).

A class that is on no list is refused, and the error names it. The user can trust a class by its name:
``--trust my_package.Net`` on the command line, ``with trusting(["my_package.Net"])`` in Python. It is not possible to
trust everything.
"""

from distill_lightning.specs.allocation import SLACK, allocating_at_most, count_numbers
from distill_lightning.specs.arguments import leaves, parameters
from distill_lightning.specs.build import NetworkSpec
from distill_lightning.specs.check import Demand, arguments_of, demands, is_spec, refuse_untrusted, requests
from distill_lightning.specs.lists import LISTED, MOVED, ROOMS, lookup, offer, trusting

__all__ = [
    "LISTED", "MOVED", "ROOMS", "SLACK", "Demand", "NetworkSpec", "allocating_at_most", "arguments_of",
    "count_numbers", "demands", "is_spec", "leaves", "lookup", "offer", "parameters", "refuse_untrusted", "requests",
    "trusting",
]  # fmt: skip
