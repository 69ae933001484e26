"""Markdown, as the tables of this folder need it."""


def table_row(cells, folder=None):
    """A row of a table; paths below a folder lose it."""
    texts = [str(cell).replace("|", "\\|") for cell in cells]
    if folder is not None:
        texts = [text.replace(str(folder), "...") for text in texts]
    return f"| {' | '.join(texts)} |"
