"""Report pages: one HTML file with everything in it."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_NUMBER = re.compile(r"[+-]?\d[\d.,]*( ± [\d.,]+)?[%sKM]?")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        columns: Headings.
        rows: As many cells each as there are columns; numbers are set flush right.

    Raises:
        ValueError: A row of another length.
    """

    columns: list[str]
    rows: list[list[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of {len(row)} cells under {len(self.columns)} columns: {row}"
                )


@dataclass(frozen=True)
class Section:
    """A part of a page, in this order.

    Attributes:
        title: Heading.
        text: Plain text; an empty line begins a paragraph.
        table: Set below the text.
        image: PNG file, set below the table; an SVG file of the same name beside it is set in its
            place.
    """

    title: str
    text: str = ""
    table: Table | None = None
    image: Path | None = None

    @property
    def paragraphs(self) -> list[str]:
        """The text's paragraphs."""
        return [part for part in self.text.split("\n\n") if part.strip()]


def write_page(path: Path, title: str, sections: Sequence[Section], *, footer: str) -> None:
    """Write a page that needs no other file, images included.

    Args:
        path: HTML file; its folder is made if missing.
        title: Heading and title.
        sections: From top to bottom.
        footer: Plain text, a line a line.

    Raises:
        FileNotFoundError: An image is missing.
        ImportError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError("report pages need jinja2: pip install 'weightfold[train]'") from error
    from weightfold.files import replacing

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("weightfold.report").joinpath("page.html").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        title=title, sections=sections, footer=footer, is_number=_is_number, picture=_picture
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _picture(image: Path) -> tuple[str, str]:
    """Markup of an SVG, or "", and data of a PNG, or ""."""
    drawing = image.with_suffix(".svg")
    if drawing.exists():
        text = drawing.read_text(encoding="utf-8")
        return text[text.index("<svg") :], ""
    return "", base64.b64encode(image.read_bytes()).decode()
