"""The errors and preconditions of the local Cloud Storage server, in Google's own words."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self
from xml.sax.saxutils import escape

Resource = dict[str, Any]
"""A bucket or an object as the JSON API spells it."""

# status: (`reason` of the JSON API, `Code` of the XML API)
REASONS: Mapping[int, tuple[str, str]] = {
    304: ("notModified", "NotModified"),
    400: ("invalid", "InvalidArgument"),
    403: ("forbidden", "AccessDenied"),
    404: ("notFound", "NoSuchKey"),
    409: ("conflict", "Conflict"),
    412: ("conditionNotMet", "PreconditionFailed"),
    416: ("requestedRangeNotSatisfiable", "InvalidRange"),
    500: ("internalError", "InternalError"),
    501: ("notImplemented", "NotImplemented"),
    503: ("backendError", "ServiceUnavailable"),
}


class ApiError(Exception):
    """A refusal that is sent to the client; raising it inside a transaction rolls the transaction back."""

    def __init__(self, status: int, message: str, *, reason: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        known = REASONS.get(status, ("error", "Error"))
        self.reason = reason or known[0]
        self.code = code or known[1]
        self.headers: dict[str, str] = {}

    def json(self) -> Resource:
        """Return the body that the JSON API sends."""
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}

    def xml(self) -> str:
        """Return the body that the XML API sends; clients read `Details`, so it is never left out."""
        message = escape(self.message)
        return (
            "<?xml version='1.0' encoding='UTF-8'?>"
            f"<Error><Code>{self.code}</Code><Message>{message}</Message><Details>{message}</Details></Error>"
        )


def bad_request(message: str, code: str | None = None) -> ApiError:
    """Return a 400."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, code=code)


def no_such_bucket(bucket: str) -> ApiError:
    """Return the 404 for a bucket."""
    return ApiError(HTTPStatus.NOT_FOUND, f"The specified bucket does not exist: {bucket}", code="NoSuchBucket")


def no_such_object(bucket: str, name: str) -> ApiError:
    """Return the 404 for an object or one of its generations."""
    return ApiError(HTTPStatus.NOT_FOUND, f"No such object: {bucket}/{name}")


def not_implemented(what: str) -> ApiError:
    """Return the 501 that says which part of Cloud Storage this server lacks."""
    return ApiError(HTTPStatus.NOT_IMPLEMENTED, f"The local storage server does not implement {what}.")


@dataclass(frozen=True)
class Preconditions:
    """What a request demands of an object's or a bucket's current state.

    An absent object has generation 0 and no metageneration, so `generation_match=0` means "create only".
    """

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str], prefix: str = "if") -> Self:
        """Read the four query parameters; with the prefix `ifSource`, those about the source of a copy."""
        # In any spelling: google-cloud-storage writes `ifMetaGenerationNotMatch` in its uploads, and a precondition
        # that is ignored is a lost update.
        query = {name.lower(): value for name, value in query.items()}
        prefix = prefix.lower()
        return cls(
            generation_match=whole_number(query, f"{prefix}generationmatch"),
            generation_not_match=whole_number(query, f"{prefix}generationnotmatch"),
            metageneration_match=whole_number(query, f"{prefix}metagenerationmatch"),
            metageneration_not_match=whole_number(query, f"{prefix}metagenerationnotmatch"),
        )

    @classmethod
    def parse_headers(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers by which the XML API says the same."""
        return cls(
            generation_match=whole_number(headers, "x-goog-if-generation-match"),
            metageneration_match=whole_number(headers, "x-goog-if-metageneration-match"),
        )

    def require(self, current: Resource | None, *, reading: bool = False) -> None:
        """Raise 412 unless every precondition holds; when reading, a not-match that fails is 304."""
        generation = int(current.get("generation", 0)) if current else 0
        metageneration = int(current["metageneration"]) if current else None
        if self.generation_match not in (None, generation):
            raise _unmet("generation", self.generation_match, generation)
        if self.metageneration_match is not None and self.metageneration_match != metageneration:
            raise _unmet("metageneration", self.metageneration_match, metageneration)
        unchanged = self.generation_not_match == generation or (
            self.metageneration_not_match is not None and self.metageneration_not_match == metageneration
        )
        if unchanged and reading:
            raise ApiError(HTTPStatus.NOT_MODIFIED, "Not modified.")
        if unchanged:
            raise ApiError(
                HTTPStatus.PRECONDITION_FAILED,
                "At least one of the pre-conditions you specified did not hold: "
                f"generation {generation} or metageneration {metageneration} was excluded.",
            )


def whole_number(values: Mapping[str, str], name: str) -> int | None:
    """Return the number under `name`, or None when there is none; raise 400 for anything else."""
    text = values.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f"Invalid value for {name}: {text!r} is not a whole number.") from None


def _unmet(what: str, wanted: int | None, current: int | None) -> ApiError:
    return ApiError(
        HTTPStatus.PRECONDITION_FAILED,
        "At least one of the pre-conditions you specified did not hold: "
        f"{what} is {current or 'absent'}, not {wanted}.",
    )
