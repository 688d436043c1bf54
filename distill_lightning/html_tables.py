"""Tables as HTML, for notebooks."""

import html
from collections.abc import Iterable, Sequence


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table as HTML. All texts are escaped; bytes of file names that are not UTF-8 are shown with escapes.

    Args:
        header: the names of the columns.
        rows: the cells of each row.
        caption: a text above the table; none by default.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"

    above = f"<caption>{_text(caption)}</caption>" if caption else ""
    body = "".join(line("td", row) for row in rows)
    return f"<table>{above}<thead>{line('th', header)}</thead><tbody>{body}</tbody></table>"


def _text(cell: str) -> str:
    return html.escape(cell.encode(errors="surrogateescape").decode(errors="backslashreplace"))
