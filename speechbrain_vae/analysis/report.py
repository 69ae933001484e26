"""A report of sections: one HTML file, its figures, its numbers."""

import base64
import html
import io
import json
import math
import re
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

Table = namedtuple("Table", "caption columns rows")
Table.__doc__ = "A table: caption, names of the columns, rows of strings and numbers."

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #ccc;
  --quiet: #5a5a5a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181b; --line: #444; --quiet: #a8a8a8; } }
body { color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 3rem; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; background: #fff;
  border-radius: 4px; } figcaption, caption, nav, footer { color: var(--quiet);
  font-size: 0.9rem; } caption { text-align: left; padding-bottom: 0.4rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0;
  font-variant-numeric: tabular-nums; } th, td { padding: 0.2rem 0.7rem;
  border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
@media print { body { max-width: none; } h2 { break-after: avoid; }
  figure { break-inside: avoid; } }
"""


@dataclass
class Section:
    """A chapter of a report.

    Arguments
    ---------
    title : str
        Its heading; also names its numbers.
    text : str
        Paragraphs with a blank line between them, which may hold inline HTML, and
        also ``**bold**`` and backticks of Markdown. Captions are plain.
    figures : list of tuple
        Name (of the files), ``matplotlib.figure.Figure`` and caption of each.
    tables : list of Table
        Caption, names of the columns, rows.
    numbers : dict
        Every number that figures and tables show, and more; nested at will. Tensors
        and arrays may be among them.
    animations : list of tuple
        Name, bytes of a GIF and caption of each.
    files : dict of str to str
        Text of files that are written beside the report, by their names.

    Example
    -------
    >>> Section("Codes", "Each frame has one.", numbers={"codes": 256}).slug
    'codes'
    """

    title: str
    text: str = ""
    figures: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    numbers: dict = field(default_factory=dict)
    animations: list = field(default_factory=list)
    files: dict = field(default_factory=dict)

    @property
    def slug(self):
        """The title as a name of files and keys."""
        return re.sub(r"[^a-z0-9]+", "_", self.title.lower()).strip("_")


def write_report(
    folder: str | Path, title: str, sections: list[Section], notes: str = ""
) -> Path:
    """Write ``report.html``, ``figures/*.png``, ``*.svg``, ``*.gif``, ``numbers.json``.

    Arguments
    ---------
    folder : str or Path
        Where to; made if missing. What an earlier report wrote there is removed, and
        nothing else.
    title : str
        Heading.
    sections : list of Section
        In their order.
    notes : str
        Paragraphs between the heading and the first section.

    Returns
    -------
    Path
        The HTML file: one file, everything in it, nothing loaded from anywhere.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(2, 2))
    >>> _ = figure.subplots().plot([0, 1])
    >>> section = Section("A line", "It rises.", [("line", figure, "From 0 to 1.")])
    >>> path = write_report(getfixture("tmp_path"), "Example", [section])
    >>> sorted(file.name for file in path.parent.rglob("*.*"))
    ['line.png', 'line.svg', 'numbers.json', 'report.html']
    """
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    names = [name for s in sections for name, *_ in [*s.figures, *s.animations]]
    if len(set(names)) < len(names):
        raise ValueError(f"figures need names of their own; got {', '.join(names)}")
    _remove_earlier(folder)
    contents = "".join(
        f'<li><a href="#{s.slug}">{html.escape(s.title)}</a></li>' for s in sections
    )
    body = "".join(_section(section, folder / "figures") for section in sections)
    texts = {name: text for s in sections for name, text in s.files.items()}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    written = sorted([*texts, *(f"figures/{name}.*" for name in names)])
    path = folder / "report.html"
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="files" content="{" ".join(written)}">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{_paragraphs(notes)}"
        f"<nav><ul>{contents}</ul></nav>{body}</body></html>\n",
        encoding="utf-8",
    )
    numbers = {section.slug: _plain(section.numbers) for section in sections}
    (folder / "numbers.json").write_text(
        json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    return path


def _remove_earlier(folder):
    """Remove what the report in a folder says that it wrote."""
    path = folder / "report.html"
    page = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    listed = re.search(r'<meta name="files" content="([^"]*)">', page)
    for name in listed[1].split() if listed else ():
        figure = re.fullmatch(r"figures/([\w-]+)\.\*", name)
        if figure:
            for kind in ("png", "svg", "gif"):
                (folder / f"figures/{figure[1]}.{kind}").unlink(missing_ok=True)
        elif re.fullmatch(r"\w[\w.-]*", name):
            (folder / name).unlink(missing_ok=True)


def _section(section, folder):
    parts = [
        f'<section id="{section.slug}"><h2>{html.escape(section.title)}</h2>',
        _paragraphs(section.text),
    ]
    for name, figure, caption in section.figures:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150, facecolor="white")
        (folder / f"{name}.png").write_bytes(picture.getvalue())
        figure.savefig(folder / f"{name}.svg", facecolor="white", dpi=150)
        parts.append(_picture(picture.getvalue(), "png", caption))
    for name, animation, caption in section.animations:
        (folder / f"{name}.gif").write_bytes(animation)
        parts.append(_picture(animation, "gif", caption))
    parts.extend(_table(table) for table in section.tables)
    return "".join(parts) + "</section>"


def _picture(content, kind, caption):
    data = base64.b64encode(content).decode()
    # It may name an utterance, and IDs of a corpus may be anything.
    caption = html.escape(caption)
    return (
        f'<figure><img src="data:image/{kind};base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table):
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_show(c))}</td>" for c in row) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table><caption>{html.escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _show(value):
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def _paragraphs(text):
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "".join(
        part if re.match(r"<(p|ul|ol|table|div)\b", part) else f"<p>{part}</p>"
        for part in parts
    )


def _plain(value):
    """What JSON can hold: arrays as lists, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
