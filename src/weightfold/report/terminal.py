"""Tables of text, for a terminal."""

from weightfold.report.page import Table


def as_text(table: Table, title: str, *, turned: bool = False) -> str:
    """A table as it is printed on a terminal.

    Args:
        table: What is shown.
        title: Above it.
        turned: A column for each row, a row for each column.
    """
    from rich.console import Console
    from rich.table import Table as RichTable

    columns, rows = table.columns, table.rows
    if turned:
        columns, *rows = [list(line) for line in zip(columns, *rows, strict=True)]
    shown = RichTable(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console = Console()
    with console.capture() as capture:
        console.print(shown)
    return capture.get().rstrip()
