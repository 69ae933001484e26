"""Markdown, as the tables and pages of this folder need it."""

from pathlib import Path

NOTES = "<!-- Written by hand from here on; the benchmark keeps it. -->"


def table_row(cells, folder=None):
    """A row of a table; paths below a folder lose it."""
    texts = [str(cell).replace("|", "\\|") for cell in cells]
    if folder is not None:
        texts = [text.replace(str(folder), "...") for text in texts]
    return f"| {' | '.join(texts)} |"


def write_page(path, text):
    """Write what a benchmark makes; what follows NOTES on the page stays.

    Example
    -------
    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp()) / "page.md"
    >>> write_page(page, "1 ms")
    >>> _ = page.write_text(page.read_text() + "Why so fast?")
    >>> write_page(page, "2 ms")
    >>> print(page.read_text())
    2 ms
    <BLANKLINE>
    <!-- Written by hand from here on; the benchmark keeps it. -->
    Why so fast?
    """
    path = Path(path)
    page = path.read_text() if path.is_file() else ""
    notes = page.partition(NOTES)[2].lstrip("\n")
    path.write_text(f"{text.rstrip()}\n\n{NOTES}\n{notes}")
