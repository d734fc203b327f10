"""Great Expectations' own pages about what a gate checked: one HTML file each, kept with the run's records.

The pages are its Data Docs, rendered by its own renderers. Its templates fetch styles, scripts and pictures from eight
hosts; ours stand in for those that do, so that a page is one file that needs no network. No row is in it: failing
values are never asked for, and of what a set of values holds only the first few are kept.
"""

import copy
import functools
import html
import logging
import re
from pathlib import Path
from typing import Any

from nightscore.errors import ConfigurationError
from nightscore.records import RunRecords

FOLDER = "data_docs"
GATES = ("feature_gate", "prediction_gate")
MOST_VALUES = 20

log = logging.getLogger(__name__)

_PAGES = Path(__file__).parent / "pages"


class DataDocsMissingError(ConfigurationError):
    """A run has no pages."""


def page_of(result: Any) -> str | None:
    """Return the page about Great Expectations' result of a suite; None where its renderers trip over it."""
    try:
        return _rendered(result)
    except Exception:  # a page that cannot be drawn must not cost a night
        log.exception("the page of Data Docs was left out")
        return None


def _rendered(result: Any) -> str:
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    logging.getLogger("great_expectations.render").setLevel(logging.CRITICAL)  # it prints a traceback and goes on
    shown = copy.deepcopy(result)
    for item in shown.results:
        _leave_out_values(item.result or {})
    shown.meta.pop("batch_spec", None)
    document = ValidationResultsPageRenderer(run_info_at_end=True).render(shown)
    text: str = _view().render(document)
    # The suite's own page, which says nothing that this one does not.
    return re.sub(r' href="\.\./[^"]*"', "", re.sub(r"\n\s*\n+", "\n", text))


def keep_page(records: RunRecords, gate: str, page: str | None) -> str | None:
    """Keep a gate's page with the records of its run; return where it is. The page of an earlier attempt stays."""
    if page is None:
        return None
    name = page_name(records, gate)
    records.bucket.create(name, page.encode(), content_type="text/html; charset=utf-8")
    return records.bucket.uri(name)


def site_of(records: RunRecords) -> dict[str, bytes]:
    """Return the pages of a run, path → HTML: one for each gate that has one, and `/` with links to them.

    Raises:
        DataDocsMissingError: no gate of the run has a page.
    """
    stored = {gate: records.bucket.read(page_name(records, gate)) for gate in GATES}
    pages = {gate: found.data for gate, found in stored.items() if found is not None}
    if not pages:
        raise DataDocsMissingError(
            f"The run {records.run_id} of {records.pipeline} has no Data Docs: no gate of it has checked anything yet."
        )
    verdicts = {gate: (records.read(gate) or {}).get("verdict", "unfinished") for gate in pages}
    index = (_PAGES / "index.html").read_text(encoding="utf-8")
    items = "\n".join(
        f'<li><a href="/{gate}.html">{gate.replace("_", " ")}</a>: {html.escape(str(verdict))}</li>'
        for gate, verdict in verdicts.items()
    )
    title = html.escape(f"{records.pipeline}, run {records.run_id}")
    home = index.replace("{{ title }}", title).replace("{{ items }}", items)
    return {"/": home.encode(), **{f"/{gate}.html": page for gate, page in pages.items()}}


def page_name(records: RunRecords, gate: str) -> str:
    """Return the name of the object that is a gate's page."""
    return f"{records.prefix}{FOLDER}/{gate}.html"


@functools.cache
def _view() -> Any:
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, FileSystemLoader

    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([FileSystemLoader(_PAGES), view.env.loader])
    return view


def _leave_out_values(found: dict[str, Any]) -> None:
    """Shorten what a result says of a column's values, and mend what the renderer would stumble over."""
    if isinstance(found.get("details"), dict):
        found["details"].pop("value_counts", None)
    observed = found.get("observed_value")
    if isinstance(observed, (list, set, tuple)):
        # The templates do not escape values.
        shown = [html.escape(item) if isinstance(item, str) else item for item in list(observed)[:MOST_VALUES]]
        found["observed_value"] = [*shown, *(["…"] if len(observed) > MOST_VALUES else [])]
    if "unexpected_percent" not in found:  # as of distinct values; the renderer takes it for granted beside a count
        found.pop("unexpected_count", None)
