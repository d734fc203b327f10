"""The JSON API of the local Cloud Storage server: one function per method, one row per route."""

from http import HTTPStatus
from urllib.parse import quote

from nightscore.local.storage_errors import (
    ApiError,
    Preconditions,
    Resource,
    bad_request,
    not_implemented,
    whole_number,
)
from nightscore.local.storage_http import Request, Response, Route, media_response, parse_multipart, route
from nightscore.local.storage_listing import LONGEST_PAGE, Question
from nightscore.local.storage_objects import ObjectId
from nightscore.local.storage_store import Store
from nightscore.local.storage_uploads import Extent, Progress

NO_CONTENT = HTTPStatus.NO_CONTENT
CLIENT_CLOSED_REQUEST = 499  # what Cloud Storage answers to a cancelled upload


def list_buckets(store: Store, request: Request) -> Response:
    """Buckets: list."""
    size = min(whole_number(request.query, "maxResults") or LONGEST_PAGE, LONGEST_PAGE)
    items, token = store.buckets.find(request.query.get("prefix", ""), request.query.get("pageToken", ""), size)
    return Response.json({"kind": "storage#buckets", "items": items, **({"nextPageToken": token} if token else {})})


def create_bucket(store: Store, request: Request) -> Response:
    """Buckets: insert."""
    return Response.json(store.buckets.create(request.body.json()))


def get_bucket(store: Store, request: Request, bucket: str) -> Response:
    """Buckets: get."""
    resource = store.buckets.read(bucket, Preconditions.parse(request.query))
    return _unless_etag(request, resource)


def update_bucket(store: Store, request: Request, bucket: str) -> Response:
    """Buckets: patch and update."""
    conditions = Preconditions.parse(request.query)
    replace = request.method == "PUT"
    return Response.json(store.buckets.update(bucket, request.body.json(), conditions, replace=replace))


def delete_bucket(store: Store, request: Request, bucket: str) -> Response:
    """Buckets: delete."""
    store.buckets.delete(bucket, Preconditions.parse(request.query))
    return Response(NO_CONTENT)


def get_storage_layout(store: Store, _request: Request, bucket: str) -> Response:
    """Buckets: getStorageLayout; gcsfs asks before it trusts a bucket's folders."""
    resource = store.buckets.read(bucket, Preconditions())
    return Response.json(
        {
            "kind": "storage#storageLayout",
            "bucket": bucket,
            "location": resource["location"],
            "locationType": resource["locationType"],
            "hierarchicalNamespace": {"enabled": False},
        }
    )


def list_objects(store: Store, request: Request, bucket: str) -> Response:
    """Objects: list."""
    page = store.objects.find(bucket, Question.parse(request.query))
    listing: Resource = {"kind": "storage#objects"}
    if page.items:
        listing["items"] = page.items
    if page.folders:
        listing["prefixes"] = page.folders
    if page.token:
        listing["nextPageToken"] = page.token
    return Response.json(listing)


def get_object(store: Store, request: Request, bucket: str, name: str) -> Response:
    """Objects: get, the resource or with alt=media the bytes."""
    target = ObjectId.parse(bucket, name, request.query)
    conditions = Preconditions.parse(request.query)
    if request.query.get("alt") == "media":
        return media_response(request, *store.objects.open(target, conditions))
    return _unless_etag(request, store.objects.read(target, conditions))


def update_object(store: Store, request: Request, bucket: str, name: str) -> Response:
    """Objects: patch and update."""
    target = ObjectId.parse(bucket, name, request.query)
    conditions = Preconditions.parse(request.query)
    replace = request.method == "PUT"
    return Response.json(store.objects.update(target, request.body.json(), conditions, replace=replace))


def delete_object(store: Store, request: Request, bucket: str, name: str) -> Response:
    """Objects: delete."""
    store.objects.delete(ObjectId.parse(bucket, name, request.query), Preconditions.parse(request.query))
    return Response(NO_CONTENT)


def copy_object(store: Store, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Response:
    """Objects: copy."""
    return Response.json(_copy(store, request, ObjectId(bucket, name), ObjectId(to_bucket, to_name)))


def rewrite_object(store: Store, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Response:
    """Objects: rewrite, always done in one call."""
    resource = _copy(store, request, ObjectId(bucket, name), ObjectId(to_bucket, to_name))
    return Response.json(
        {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": resource["size"],
            "objectSize": resource["size"],
            "done": True,
            "resource": resource,
        }
    )


def move_object(store: Store, request: Request, bucket: str, name: str, to_name: str) -> Response:
    """Objects: move, within one bucket."""
    return Response.json(_copy(store, request, ObjectId(bucket, name), ObjectId(bucket, to_name), move=True))


def compose_object(store: Store, request: Request, bucket: str, name: str) -> Response:
    """Objects: compose."""
    conditions = Preconditions.parse(request.query)
    return Response.json(store.objects.compose(ObjectId(bucket, name), request.body.json(), conditions))


def upload_object(store: Store, request: Request, bucket: str) -> Response:
    """Objects: insert, by a media or multipart upload, or by starting or continuing a resumable one."""
    if "upload_id" in request.query:
        return continue_upload(store, request, bucket)
    if "kmsKeyName" in request.query:
        raise not_implemented("encryption keys")
    kind = request.query.get("uploadType")
    if kind == "resumable":
        return start_upload(store, request, bucket)
    if kind == "media":
        metadata: Resource = {"contentType": request.headers.get("content-type")}
        pieces = request.body.pieces()
    elif kind == "multipart":
        metadata, pieces = parse_multipart(request)
    else:
        raise bad_request(f"Invalid value for uploadType: {kind!r}")
    target = ObjectId(bucket, _upload_name(metadata, request))
    metadata |= request.expected_checksums()
    conditions = Preconditions.parse(request.query)
    return Response.json(store.objects.insert(target, store.files.write(pieces), metadata, conditions))


def start_upload(store: Store, request: Request, bucket: str) -> Response:
    """Open a resumable upload and answer with the address of its session."""
    metadata = request.body.json()
    metadata.setdefault("contentType", request.headers.get("x-upload-content-type"))
    target = ObjectId(bucket, _upload_name(metadata, request))
    upload = store.uploads.start(target, metadata, Preconditions.parse(request.query))
    host = request.headers.get("host", "127.0.0.1")
    path = f"/upload/storage/v1/b/{quote(bucket, safe='')}/o?uploadType=resumable&upload_id={upload}"
    return Response(headers={"Location": f"http://{host}{path}", "X-GUploader-UploadID": upload})


def continue_upload(store: Store, request: Request, bucket: str) -> Response:
    """Take bytes of a resumable upload, say how many arrived, or cancel it."""
    upload = request.query["upload_id"]
    if request.method == "DELETE":
        store.uploads.cancel(bucket, upload)
        return Response(CLIENT_CLOSED_REQUEST)
    extent = Extent.parse(request.headers.get("content-range"))
    progress = store.uploads.receive(bucket, upload, extent, request.body.pieces(), request.expected_checksums())
    return _progress_response(progress)


def _progress_response(progress: Progress) -> Response:
    if progress.finished is not None:
        return Response.json(progress.finished)
    # Without a Range header nothing was kept; a client that reads `bytes=0-0` would believe in one byte.
    span = {"Range": f"bytes=0-{progress.received - 1}"} if progress.received else {}
    return Response(HTTPStatus.PERMANENT_REDIRECT, headers=span)


def _copy(store: Store, request: Request, source: ObjectId, target: ObjectId, *, move: bool = False) -> Resource:
    return store.objects.copy(
        ObjectId.parse(source.bucket, source.name, request.query, "sourceGeneration"),
        target,
        {} if move else request.body.json(),
        Preconditions.parse(request.query),
        Preconditions.parse(request.query, "ifSource"),
        move=move,
    )


def _upload_name(metadata: Resource, request: Request) -> str:
    name = metadata.get("name") or request.query.get("name")
    if not isinstance(name, str):
        raise bad_request("Required: the object's name, in the metadata or as a query parameter.")
    return name


def _unless_etag(request: Request, resource: Resource) -> Response:
    wanted, known = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted and wanted.strip('"') != resource["etag"]:
        raise ApiError(HTTPStatus.PRECONDITION_FAILED, "The ETag is another one.")
    if known and known.strip('"') == resource["etag"]:
        raise ApiError(HTTPStatus.NOT_MODIFIED, "Not modified.")
    return Response.json(resource)


BUCKET = "/storage/v1/b/{bucket}"
OBJECT = BUCKET + "/o/{name}"
UPLOAD = "/upload/storage/v1/b/{bucket}/o"

ROUTES: tuple[Route, ...] = (
    route("GET", "/storage/v1/b", list_buckets),
    route("POST", "/storage/v1/b", create_bucket),
    route("GET", BUCKET, get_bucket),
    route("PATCH", BUCKET, update_bucket),
    route("PUT", BUCKET, update_bucket),
    route("DELETE", BUCKET, delete_bucket),
    route("GET", BUCKET + "/storageLayout", get_storage_layout),
    route("GET", BUCKET + "/o", list_objects),
    route("GET", OBJECT, get_object),
    route("GET", "/download" + OBJECT, get_object),
    route("PATCH", OBJECT, update_object),
    route("PUT", OBJECT, update_object),
    route("DELETE", OBJECT, delete_object),
    route("POST", OBJECT + "/copyTo/b/{to_bucket}/o/{to_name}", copy_object),
    route("POST", OBJECT + "/rewriteTo/b/{to_bucket}/o/{to_name}", rewrite_object),
    route("POST", OBJECT + "/moveTo/o/{to_name}", move_object),
    route("POST", OBJECT + "/compose", compose_object),
    route("POST", UPLOAD, upload_object),
    route("PUT", UPLOAD, upload_object),
    route("DELETE", UPLOAD, upload_object),
    route("POST", "/resumable" + UPLOAD, upload_object),
)
