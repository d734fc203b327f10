"""Listing the objects of a bucket: prefixes, delimiters, globs, offsets, versions and pages."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from nightscore.local.storage_buckets import require_bucket
from nightscore.local.storage_database import Transaction
from nightscore.local.storage_errors import Resource, bad_request, not_implemented, whole_number

LONGEST_PAGE = 1000


@dataclass(frozen=True)
class Position:
    """The last entry of a page: an object's generation, or a folder (all objects that share a prefix)."""

    name: str
    generation: int = 0
    folder: bool = False

    def token(self) -> str:
        """Return the page token that continues after this entry."""
        return base64.urlsafe_b64encode(json.dumps([self.name, self.generation, self.folder]).encode()).decode()

    @classmethod
    def parse(cls, token: str) -> Self:
        """Read a page token."""
        try:
            name, generation, folder = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise bad_request(f"Invalid page token: {token!r}") from None
        return cls(str(name), int(generation), bool(folder))

    def covers(self, name: str, generation: int) -> bool:
        """Return whether the object was already listed at this position."""
        return name.startswith(self.name) if self.folder else (name, generation) <= (self.name, self.generation)


@dataclass(frozen=True)
class Question:
    """What a listing is asked for, named as in the JSON API."""

    prefix: str = ""
    delimiter: str = ""
    start: str = ""
    end: str = ""
    glob: re.Pattern[str] | None = None
    versions: bool = False
    trailing_delimiter: bool = False
    size: int = LONGEST_PAGE
    after: Position | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """Read the query parameters of objects.list."""
        for refused in ("softDeleted", "filter"):
            if query.get(refused, "false") != "false":
                raise not_implemented(f"the parameter {refused} of a listing")
        size = whole_number(query, "maxResults") or LONGEST_PAGE
        if size < 0:
            raise bad_request(f"Invalid value for maxResults: {size}")
        return cls(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start=query.get("startOffset", ""),
            end=query.get("endOffset", ""),
            glob=glob_pattern(query["matchGlob"]) if query.get("matchGlob") else None,
            versions=query.get("versions", "").lower() == "true",
            trailing_delimiter=query.get("includeTrailingDelimiter", "").lower() == "true",
            size=min(size, LONGEST_PAGE),
            after=Position.parse(query["pageToken"]) if query.get("pageToken") else None,
        )

    def folder_of(self, name: str) -> str | None:
        """Return the prefix under which an object is summed up, or None when it is listed itself."""
        if not self.delimiter:
            return None
        at = name.find(self.delimiter, len(self.prefix))
        return None if at < 0 else name[: at + len(self.delimiter)]


@dataclass
class Page:
    """One page of a listing, and the token of the next."""

    items: list[Resource] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    token: str | None = None

    def __len__(self) -> int:
        return len(self.items) + len(self.folders)


def read_page(view: Transaction, bucket: str, question: Question) -> Page:
    """Return the next page of a bucket's objects, ordered by name (as UTF-8 bytes) and generation."""
    require_bucket(view, bucket)
    after = question.after
    page = Page()
    last: Position | None = None
    rows = view.execute(
        "SELECT name, generation, resource FROM objects WHERE bucket = ? AND name >= ? AND (live OR ?) "
        "ORDER BY name, generation",
        bucket,
        max(question.prefix, question.start, after.name if after else ""),
        question.versions,
    )
    for name, generation, resource in rows:
        if not name.startswith(question.prefix) or (question.end and name >= question.end):
            break
        if (after and after.covers(name, generation)) or (question.glob and not question.glob.fullmatch(name)):
            continue
        folder = question.folder_of(name)
        itself = folder is None or (question.trailing_delimiter and folder == name)
        seen = folder is None or page.folders[-1:] == [folder]
        if seen and not itself:
            continue
        if last and len(page) >= question.size:
            page.token = last.token()
            break
        if itself:
            page.items.append(json.loads(resource))
        if folder is not None and not seen:
            page.folders.append(folder)
        last = Position(name, generation) if folder is None or itself else Position(folder, folder=True)
    return page


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Return the regular expression of a `matchGlob`: `*`, `?`, `[…]` stay within a folder, `**` does not.

    >>> pattern = glob_pattern("runs/*/part-{1,2}.{parquet,json}")
    >>> bool(pattern.fullmatch("runs/a/part-1.json")), bool(pattern.fullmatch("runs/a/b/part-1.json"))
    (True, False)
    >>> bool(glob_pattern("runs/**[0-9].json").fullmatch("runs/a/b/7.json"))
    True
    """
    expression, open_braces = "", 0
    for token in re.findall(r"\*\*|\[!?\]?[^\]]*\]|.", glob, re.DOTALL):
        match token:
            case "**":
                expression += ".*"
            case "*":
                expression += "[^/]*"
            case "?":
                expression += "[^/]"
            case "{":
                expression, open_braces = expression + "(?:", open_braces + 1
            case "}" if open_braces:
                expression, open_braces = expression + ")", open_braces - 1
            case "," if open_braces:
                expression += "|"
            case _ if token.startswith("[") and len(token) > 1:
                negated = token[1] == "!"
                inner = token[2 if negated else 1 : -1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
                expression += f"[{'^' if negated else ''}{inner}]"
            case _:
                expression += re.escape(token)
    try:
        return re.compile(expression, re.DOTALL)
    except re.error:
        raise bad_request(f"Invalid value for matchGlob: {glob!r}") from None
