"""The part of the XML API that DuckDB, curl and multipart uploads use: `/bucket/object`, S3-style listings."""

import re
from http import HTTPStatus
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from nightscore.local.storage_errors import Preconditions, Resource, bad_request, not_implemented, whole_number
from nightscore.local.storage_http import Request, Response, media_response, unquoted
from nightscore.local.storage_listing import Question
from nightscore.local.storage_objects import ObjectId
from nightscore.local.storage_store import Store

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
PROLOGUE = "<?xml version='1.0' encoding='UTF-8'?>"
# Metadata that travels in headers: header, field of the JSON API.
METADATA_HEADERS = (
    ("content-type", "contentType"),
    ("content-encoding", "contentEncoding"),
    ("content-disposition", "contentDisposition"),
    ("content-language", "contentLanguage"),
    ("cache-control", "cacheControl"),
    ("x-goog-custom-time", "customTime"),
    ("x-goog-storage-class", "storageClass"),
)


def answer(store: Store, request: Request) -> Response:
    """Answer a request of the XML API."""
    match = re.fullmatch(r"/([^/]+)(?:/(.*))?", request.path, re.DOTALL)
    if match is None:
        raise not_implemented(f"{request.method} {request.path}")
    bucket, name = unquoted(match[1]), unquoted(match[2] or "")
    if not name and request.method == "GET":
        return list_objects(store, request, bucket)
    endpoint = ENDPOINTS.get((request.method, _subresource(request)))
    if endpoint is None or not name:
        raise not_implemented(f"{request.method} {request.path} in the XML API")
    return endpoint(store, request, ObjectId.parse(bucket, name, request.query))


def get_object(store: Store, request: Request, target: ObjectId) -> Response:
    """GET and HEAD Object."""
    conditions = Preconditions.parse_headers(request.header)
    return media_response(request, *store.objects.open(target, conditions))


def put_object(store: Store, request: Request, target: ObjectId) -> Response:
    """PUT Object."""
    if "x-goog-copy-source" in request.header:
        raise not_implemented("copies in the XML API")
    metadata = _metadata(request) | request.expected_checksums()
    blob = store.files.write(request.body.pieces())
    resource = store.objects.insert(target, blob, metadata, Preconditions.parse_headers(request.header))
    return Response(headers={"ETag": f'"{resource["etag"]}"', "X-Goog-Generation": resource["generation"]})


def delete_object(store: Store, request: Request, target: ObjectId) -> Response:
    """DELETE Object."""
    store.objects.delete(target, Preconditions.parse_headers(request.header))
    return Response(HTTPStatus.NO_CONTENT)


def start_parts(store: Store, request: Request, target: ObjectId) -> Response:
    """Initiate a multipart upload."""
    conditions = Preconditions.parse_headers(request.header)
    upload = store.uploads.start_parts(target, _metadata(request), conditions)
    return Response.xml(
        f"{PROLOGUE}<InitiateMultipartUploadResult xmlns='{NAMESPACE}'><Bucket>{escape(target.bucket)}</Bucket>"
        f"<Key>{escape(target.name)}</Key><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
    )


def put_part(store: Store, request: Request, target: ObjectId) -> Response:
    """Upload a part."""
    number = whole_number(request.query, "partNumber") or 0
    blob = store.files.write(request.body.pieces())
    etag = store.uploads.put_part(target, request.query["uploadId"], number, blob, request.expected_checksums())
    return Response(headers={"ETag": etag, "X-Goog-Hash": f"crc32c={blob.crc32c},md5={blob.md5}"})


def complete_parts(store: Store, request: Request, target: ObjectId) -> Response:
    """Complete a multipart upload."""
    wanted = _named_parts(request.body.read())
    resource = store.uploads.complete_parts(target, request.query["uploadId"], wanted)
    return Response.xml(
        f"{PROLOGUE}<CompleteMultipartUploadResult xmlns='{NAMESPACE}'><Bucket>{escape(target.bucket)}</Bucket>"
        f"<Key>{escape(target.name)}</Key><ETag>&quot;{resource['etag']}&quot;</ETag></CompleteMultipartUploadResult>",
        headers={"X-Goog-Generation": resource["generation"], "X-Goog-Hash": f"crc32c={resource['crc32c']}"},
    )


def cancel_parts(store: Store, request: Request, target: ObjectId) -> Response:
    """Abort a multipart upload."""
    store.uploads.cancel_parts(target, request.query["uploadId"])
    return Response(HTTPStatus.NO_CONTENT)


def list_objects(store: Store, request: Request, bucket: str) -> Response:
    """List a bucket's objects, as S3's ListObjectsV2 does."""
    query = request.query
    for subresource in ("acl", "cors", "lifecycle", "location", "uploads", "versioning", "versions"):
        if subresource in query:
            raise not_implemented(f"?{subresource} in the XML API")
    encode = quote if query.get("encoding-type") == "url" else escape
    question = Question.parse(
        {
            "prefix": query.get("prefix", ""),
            "delimiter": query.get("delimiter", ""),
            "startOffset": query["start-after"] + "\0" if query.get("start-after") else "",
            "maxResults": query.get("max-keys", ""),
            "pageToken": query.get("continuation-token", ""),
        }
    )
    page = store.objects.find(bucket, question)
    contents = "".join(
        f"<Contents><Key>{encode(item['name'])}</Key><LastModified>{item['updated']}</LastModified>"
        f"<ETag>&quot;{item['etag']}&quot;</ETag><Size>{item['size']}</Size>"
        f"<StorageClass>{item['storageClass']}</StorageClass></Contents>"
        for item in page.items
    )
    folders = "".join(f"<CommonPrefixes><Prefix>{encode(folder)}</Prefix></CommonPrefixes>" for folder in page.folders)
    following = f"<NextContinuationToken>{page.token}</NextContinuationToken>" if page.token else ""
    return Response.xml(
        f"{PROLOGUE}<ListBucketResult xmlns='{NAMESPACE}'><Name>{escape(bucket)}</Name>"
        f"<Prefix>{encode(question.prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        f"<IsTruncated>{'true' if page.token else 'false'}</IsTruncated>{following}{contents}{folders}"
        "</ListBucketResult>"
    )


ENDPOINTS = {
    ("GET", ""): get_object,
    ("HEAD", ""): get_object,
    ("PUT", ""): put_object,
    ("DELETE", ""): delete_object,
    ("POST", "uploads"): start_parts,
    ("PUT", "uploadId"): put_part,
    ("POST", "uploadId"): complete_parts,
    ("DELETE", "uploadId"): cancel_parts,
}


def _subresource(request: Request) -> str:
    known = ("uploads", "uploadId", "acl", "tagging", "compose", "encryption", "retention")
    return next((name for name in known if name in request.query), "")


def _metadata(request: Request) -> Resource:
    headers = request.header
    metadata: Resource = {field: headers[header] for header, field in METADATA_HEADERS if header in headers}
    prefix = "x-goog-meta-"
    custom = {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}
    return metadata | ({"metadata": custom} if custom else {})


def _named_parts(body: bytes) -> list[tuple[int, str]]:
    # The parser refuses nothing by itself, but a document without a type declaration cannot expand entities.
    if b"<!" in body:
        raise bad_request("The request has a document type declaration.", "MalformedXML")
    try:
        root = ET.fromstring(body)  # noqa: S314 - see above
        return [
            (int(part.findtext("{*}PartNumber", "")), part.findtext("{*}ETag", "")) for part in root.findall("{*}Part")
        ]
    except (ET.ParseError, ValueError):
        raise bad_request("The list of parts is not valid XML.", "MalformedXML") from None
