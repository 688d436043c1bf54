"""Renders the templates of reports."""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, **values: Any) -> str:
    """The text of a template. Every value is escaped, unless the template itself says that it is HTML.

    Args:
        name: the file's name in the folder ``templates``.
        values: the values that the template uses, by name.
    """
    return _environment().get_template(name).render(values)


def read(name: str) -> str:
    """The text of a file in the folder ``templates``, as it is."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only needed when something is written

    loader = PackageLoader("distill_lightning.report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
