"""What a file may ask to have built, and how a network is built from it.

A specification is plain data: ``{"class_path": "package.Class", "init_args": {...}}``. One that comes from a file
(a checkpoint, or a configuration that the program finds by itself) is checked as a whole before any of it is imported:

- a class path must be on the list of its kind (``lists``): networks of this package, of torchvision and timm by name;
  torch's optimizers and schedulers; this package's data modules, transforms, methods and callbacks; some callbacks of
  Lightning's, which neither write nor connect;
- arguments must be plain data of the kind that the class declares (``arguments``), at every depth (``check``); a text
  where a class belongs is refused, so that it is never taken for the path of a file, an address or the name of
  something to import;
- a network may not need much more memory than the file holds weights for (``allocation``).

What is not on a list is refused by name, unless the user has trusted it by name: ``--trust my_package.Net`` on the
command line, ``with trusting(["my_package.Net"])`` in Python. There is no way to trust everything.
"""

from distill_lightning.specs.allocation import SLACK, allocating_at_most, count_numbers
from distill_lightning.specs.arguments import leaves, parameters
from distill_lightning.specs.build import NetworkSpec
from distill_lightning.specs.check import Demand, demands, is_spec, refuse_untrusted, requests
from distill_lightning.specs.lists import LISTED, MOVED, ROOMS, lookup, offer, trusting

__all__ = [
    "LISTED", "MOVED", "ROOMS", "SLACK", "Demand", "NetworkSpec", "allocating_at_most", "count_numbers", "demands",
    "is_spec", "leaves", "lookup", "offer", "parameters", "refuse_untrusted", "requests", "trusting",
]  # fmt: skip
