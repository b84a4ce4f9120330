"""What the proof found, for people and for CI: the page, the model card, JUnit XML and GitHub annotations.

Everything here takes the JSON value that `kobako.pipeline.package.report_data` makes (it is also ``report.json``)
and returns text. Nothing here measures, judges or reads a file of the package.

- `render_html`: one self-contained page;
- `model_card`: the package's README.md;
- `kobako.pipeline.report.ci`: JUnit XML, job summary and annotations;
- `kobako.pipeline.report.words`: figures as words, for the command line too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["model_card", "render_html"]


def render_html(data: Mapping[str, Any]) -> str:
    """The report as one HTML page that loads nothing from anywhere."""
    from .page import page

    return page(data)


def model_card(data: Mapping[str, Any]) -> str:
    """The package's README.md: a Hugging Face model card with the proof in it."""
    from .card import card

    return card(data)
