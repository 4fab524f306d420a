"""Requests to one bucket of an S3 server."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from infra.storage import checksums, failures
from infra.storage.base import ALL_ENTRIES, EntryFilter, check_name
from infra.storage.transfer import Transfer, attempt

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import MultipartUploadTypeDef

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Mapping[str, Any])

BLOCK = 2**20
_GONE = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}
_CHANGED = {"PreconditionFailed", "412"}
_NOT_IMPLEMENTED = 501


class ChangedError(Exception):
    """The object has changed since it was listed."""


class OccupiedError(Exception):
    """Another object has the key than the one that may be replaced."""


@dataclass(frozen=True)
class RemoteObject:
    """A listed object.

    Attributes:
        key: Its whole key.
        size: In bytes.
        etag: Without the quotation marks that some servers write in one place and not in another.
        modified: When it was written, by the server's clock.
    """

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class MultipartUpload:
    """An incomplete multipart upload."""

    key: str
    upload_id: str


@dataclass(frozen=True)
class _Page:
    """A page of a listing, and the token of the next page; "" at the end."""

    objects: list[RemoteObject]
    prefixes: list[str]
    token: str


class Bucket:
    """Client of one bucket, for one transfer.

    Every method retries transient errors, and raises a ``ModelyardError`` for others.
    """

    def __init__(self, uri: str, client: S3Client, name: str, transfer: Transfer) -> None:
        self.uri = uri
        self.transfer = transfer
        self._client = client
        self._is_https = client.meta.endpoint_url.startswith("https:")
        self._name = name
        self._reached = False
        self._has_conditions = True

    def afresh(self) -> Bucket:
        """Create a client for cleaning up after the transfer has failed."""
        transfer = Transfer(self.transfer.settings)
        return Bucket(self.uri, self._client, self._name, transfer)

    def _ask(self, action: Callable[[], T]) -> T:
        """``action`` with further attempts; an error answer is left to ``_translate_errors``."""
        answer = attempt(action, self.transfer, self.uri, reached=self._reached)
        self._reached = True
        return answer

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn an error answer that means nothing to the caller into one for people."""
        try:
            yield
        except ClientError as error:
            raise failures.translate(self.uri, error) from None

    def find(self, key: str) -> RemoteObject | None:
        """Find the object of exactly this key.

        It is looked up in a listing, which says why it fails; HEAD has no body to say it in.
        """
        found = self._page(Prefix=key, MaxKeys=1).objects
        return found[0] if found and found[0].key == key else None

    def has_below(self, prefix: str) -> bool:
        """Whether any key begins with ``prefix``."""
        return bool(self._page(Prefix=prefix, MaxKeys=1).objects)

    def below(self, prefix: str) -> list[RemoteObject]:
        """List every object whose key begins with ``prefix``."""
        return [remote for page in self._pages(Prefix=prefix) for remote in page.objects]

    def level(self, prefix: str) -> tuple[list[RemoteObject], list[str]]:
        """List the objects directly below ``prefix``, and the common prefixes of deeper ones."""
        pages = list(self._pages(Prefix=prefix, Delimiter="/"))
        return (
            [remote for page in pages for remote in page.objects],
            [deeper for page in pages for deeper in page.prefixes],
        )

    def _pages(self, **query: Any) -> Iterator[_Page]:
        page = self._page(**query)
        yield page
        while page.token:
            page = self._page(**query, ContinuationToken=page.token)
            yield page

    def _page(self, **query: Any) -> _Page:
        with self._translate_errors():
            answer = self._ask(
                lambda: _whole(
                    self._client.list_objects_v2(Bucket=self._name, **query), "IsTruncated"
                )
            )
        return _Page(
            [
                RemoteObject(
                    each["Key"], each["Size"], _bare(each.get("ETag")), each["LastModified"]
                )
                for each in answer.get("Contents", ())
            ],
            [each["Prefix"] for each in answer.get("CommonPrefixes", ())],
            answer["NextContinuationToken"] if answer["IsTruncated"] else "",
        )

    def get(
        self, remote: RemoteObject, start: int, length: int, sink: Callable[[int, bytes], None]
    ) -> bool:
        """Read a range into ``sink``, block after block with offsets.

        A further attempt gives them again from the start of the range.

        Returns:
            Whether the server says that the ETag is no MD5, because it encrypts with other keys.

        Raises:
            ChangedError: If the object is another by now, or gone.
        """
        whole = start == 0 and length == remote.size
        query: dict[str, str] = {"IfMatch": f'"{remote.etag}"'} if remote.etag else {}
        if not whole:
            query["Range"] = f"bytes={start}-{start + length - 1}"

        def once() -> bool:
            answer = self._client.get_object(Bucket=self._name, Key=remote.key, **query)  # type: ignore[arg-type]
            if remote.etag and _bare(answer.get("ETag")) != remote.etag:
                raise ChangedError
            with contextlib.closing(answer["Body"]) as body:
                if answer.get("ContentLength") != length or not (
                    whole or answer.get("ContentRange", "").startswith(f"bytes {start}-")
                ):
                    raise ConnectionError("not the range that was asked for")
                offset = start
                while block := body.read(BLOCK):
                    self.transfer.check()
                    sink(offset, block)
                    offset += len(block)
                if offset != start + length:
                    raise ConnectionError("fewer bytes than promised")
            return checksums.is_opaque(answer)

        try:
            return self._ask(once)
        except ClientError as error:
            if failures.code_of(error) in _CHANGED | _GONE:
                raise ChangedError from None
            raise failures.translate(self.uri, error) from None

    def read(self, key: str, offset: int, length: int | None) -> bytes | None:
        """Read bytes of an object; None if it does not exist."""
        # A range cannot be empty, so for no bytes one is requested, which shows what exists.
        last = "" if length is None else offset + max(length, 1) - 1
        whole = offset == 0 and length is None
        query = {} if whole else {"Range": f"bytes={offset}-{last}"}

        def once() -> bytes:
            answer = self._client.get_object(Bucket=self._name, Key=key, **query)  # type: ignore[arg-type]
            with contextlib.closing(answer["Body"]) as body:
                content: bytes = body.read()
            if len(content) != answer.get("ContentLength"):
                raise ConnectionError("fewer bytes than promised")
            promised = checksums.plain_md5(_bare(answer.get("ETag"))) if whole else None
            is_right = promised in {None, checksums.md5(content)}
            if not is_right and not checksums.is_opaque(answer):
                raise ConnectionError("other bytes than promised")
            begin = 0 if answer.get("ContentRange") else offset
            return content[begin:] if length is None else content[begin : begin + length]

        try:
            return self._ask(once)
        except ClientError as error:
            if failures.code_of(error) in {"InvalidRange", "416"}:
                return b""
            if failures.code_of(error) in _GONE:
                return None
            raise failures.translate(self.uri, error) from None

    def part_size(self, remote: RemoteObject, number: int = 1) -> int | None:
        """Return the size of one part of a multipart object; None if unknown."""
        try:
            answer = self._ask(
                lambda: self._client.head_object(
                    Bucket=self._name, Key=remote.key, PartNumber=number
                )
            )
        except ClientError:  # a server that has no notion of parts afterwards
            return None
        # The ETag is not compared: some servers give the part's own here.
        if answer.get("PartsCount") != checksums.part_count(remote.etag):
            return None
        return answer["ContentLength"]

    def put(self, key: str, content: bytes, md5: str, expected: str | None = None) -> str:
        """Write a whole object; return its ETag.

        The request bears the content's MD5, which the server compares.

        Args:
            key: The object's key.
            content: Its bytes.
            md5: Their MD5.
            expected: ETag of the object that may be replaced; "" if there is to be none, None for
                any. Servers that know no conditions replace any.

        Raises:
            OccupiedError: If another one is there.
        """
        with self._translate_errors():
            answer = self._write(
                expected,
                lambda condition: self._client.put_object(
                    Bucket=self._name, Key=key, Body=content, ContentMD5=_base64(md5), **condition
                ),
            )
        return "" if checksums.is_opaque(answer) else _bare(answer.get("ETag"))

    def _write(self, expected: str | None, write: Callable[[dict[str, Any]], Answer]) -> Answer:
        """Ask for a write on the condition that the object is the one that is expected."""
        condition = {}
        if expected is not None and self._has_conditions:
            condition = {"IfMatch": f'"{expected}"'} if expected else {"IfNoneMatch": "*"}
        try:
            return self._ask(lambda: write(condition))
        except ClientError as error:
            code = failures.code_of(error)
            if condition and code in _CHANGED:
                raise OccupiedError from None
            if "IfMatch" in condition and code in _GONE:  # what was to be replaced
                return self._write("", write)
            if condition and failures.status_of(error) == _NOT_IMPLEMENTED:
                self._has_conditions = False
                return self._write(None, write)
            raise

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        with self._translate_errors():
            self._ask(lambda: self._client.delete_object(Bucket=self._name, Key=key))

    def begin(self, key: str) -> MultipartUpload:
        """Begin a multipart upload."""
        with self._translate_errors():
            answer = self._ask(
                lambda: _whole(
                    self._client.create_multipart_upload(Bucket=self._name, Key=key), "UploadId"
                )
            )
        return MultipartUpload(key, answer["UploadId"])

    def put_part(self, upload: MultipartUpload, number: int, content: bytes, md5: str) -> str:
        """Upload one part; return its ETag.

        Its signature covers the bytes: over https by their MD5, which is cheaper to make, and
        over plain http by boto3's SHA-256. Both at once would be one hash more on either side.

        Raises:
            ChangedError: If the upload was ended by another client.
        """
        covered: Any = {"ContentMD5": _base64(md5)} if self._is_https else {}
        try:
            answer = self._ask(
                lambda: self._client.upload_part(
                    Bucket=self._name, Key=upload.key, UploadId=upload.upload_id,
                    PartNumber=number, Body=content, **covered,
                )
            )  # fmt: skip
        except ClientError as error:
            raise self._ended(error) from None
        return "" if checksums.is_opaque(answer) else _bare(answer.get("ETag"))

    def complete(
        self, upload: MultipartUpload, etags: list[str], expected: str | None = None
    ) -> str:
        """Complete the upload; return the object's ETag.

        Raises:
            ChangedError: If another client ended the upload, or uploaded other parts.
            OccupiedError: If another object is there than is expected; see :meth:`put`.
        """
        parts: Any = [{"PartNumber": n, "ETag": f'"{etag}"'} for n, etag in enumerate(etags, 1)]
        try:
            answer = self._write(
                expected,
                lambda condition: _whole(
                    self._client.complete_multipart_upload(
                        Bucket=self._name, Key=upload.key, UploadId=upload.upload_id,
                        MultipartUpload={"Parts": parts}, **condition,
                    ),
                    "ETag",
                ),
            )  # fmt: skip
        except ClientError as error:
            raise self._ended(error) from None
        return "" if checksums.is_opaque(answer) else _bare(answer.get("ETag"))

    def _ended(self, error: ClientError) -> Exception:
        if failures.code_of(error) in {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "404"}:
            return ChangedError()
        return failures.translate(self.uri, error)

    def abort(self, upload: MultipartUpload) -> None:
        """Abort an upload; one that no longer exists is not an error."""
        try:
            self._ask(
                lambda: self._client.abort_multipart_upload(
                    Bucket=self._name, Key=upload.key, UploadId=upload.upload_id
                )
            )
        except ClientError as error:
            if not isinstance(self._ended(error), ChangedError):
                raise failures.translate(self.uri, error) from None

    def unfinished(self, prefix: str) -> list[MultipartUpload]:
        """List the multipart uploads to keys below ``prefix``, the newest first."""
        found: list[MultipartUploadTypeDef] = []
        marker: dict[str, str] = {}
        while True:
            try:
                answer = self._ask(
                    lambda marker=marker: self._client.list_multipart_uploads(  # type: ignore[misc]
                        Bucket=self._name, Prefix=prefix, **marker
                    )
                )
            except ClientError as error:
                # A server that keeps none, or cannot list them: nothing to resume.
                if failures.status_of(error) in {403, 404, 501}:
                    return []
                raise failures.translate(self.uri, error) from None
            found += answer.get("Uploads", ())
            if not answer.get("IsTruncated"):
                found.sort(key=lambda upload: upload["Initiated"], reverse=True)
                return [MultipartUpload(upload["Key"], upload["UploadId"]) for upload in found]
            marker = {
                "KeyMarker": answer["NextKeyMarker"],
                "UploadIdMarker": answer["NextUploadIdMarker"],
            }

    def parts(self, upload: MultipartUpload) -> dict[int, tuple[int, str]]:
        """List size and ETag of the uploaded parts, by number."""
        found: dict[int, tuple[int, str]] = {}
        marker: dict[str, int] = {}
        while True:
            try:
                answer = self._ask(
                    lambda marker=marker: self._client.list_parts(  # type: ignore[misc]
                        Bucket=self._name, Key=upload.key, UploadId=upload.upload_id, **marker
                    )
                )
            except ClientError as error:
                if isinstance(self._ended(error), ChangedError):
                    return {}
                raise failures.translate(self.uri, error) from None
            for part in answer.get("Parts", ()):
                found[part["PartNumber"]] = (part["Size"], _bare(part.get("ETag")))
            if not answer.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": answer["NextPartNumberMarker"]}


def _whole(answer: Answer, field: str) -> Answer:
    """``answer``, which always has ``field``.

    One that was cut off may read as if there were nothing.
    """
    if field not in answer:
        raise ConnectionError("half an answer")
    return answer


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _base64(md5: str) -> str:
    """An MD5 as a request's header has it."""
    return base64.b64encode(bytes.fromhex(md5)).decode()


def named(
    remotes: list[RemoteObject], prefix: str, only: EntryFilter = ALL_ENTRIES
) -> dict[str, RemoteObject]:
    """Map names below ``prefix`` to chosen objects, without the markers of empty folders.

    Raises:
        BadInputError: If a key is no path that a folder could hold.
    """
    found = {}
    for remote in remotes:
        name = remote.key.removeprefix(prefix)
        if remote.size == 0 and (not name or name.endswith("/")):
            continue
        if only.chooses(name):
            check_name(name)
            found[name] = remote
    return dict(sorted(found.items()))
