"""An S3 bucket, on AWS or any compatible server that honours `If-None-Match` (SeaweedFS, MinIO, ...)."""

from __future__ import annotations

import io
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from itertools import count
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from motionsynth.errors import InputError
from storage.limits import MAX_OBJECT_BYTES, too_large
from storage.objects import MissingError, ObjectInfo, PutResult, conflict, sha256

_T = TypeVar("_T")

CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 4
"""Of one request, within a few seconds; all there are at the first contact, where a typing error is likely."""
PATIENCE_SECONDS = 120
"""How long a request is repeated once the server has answered: a restart of the server ends no job."""
ARROW_ATTEMPTS = 10
MULTIPART_BYTES = 256 * 1024 * 1024
"""Larger objects are uploaded in parts (atomic too); a single PUT ends at 5 GiB."""

_WORKER_ENV = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "AWS_EC2_METADATA_DISABLED",
)
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "Forbidden", "InvalidToken"}
_ELSEWHERE = {
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_PASSING = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "429"}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_TAKEN = {"PreconditionFailed", "412"}

logger = logging.getLogger(__name__)


class S3Store:
    """Objects of one bucket; see `storage.objects.Store`."""

    __slots__ = ("_answered", "_client", "_filesystem", "_lock", "_seen", "bucket", "endpoint", "region")

    def __init__(self, bucket: str, endpoint: str | None = None, region: str | None = None) -> None:
        """Args:
        bucket: Its name.
        endpoint: URL of the server, "" for AWS; from the environment when None.
        region: From the environment when None, "us-east-1" when that has none.

        Raises:
            InputError: the endpoint is no http(s) URL or has credentials in it.
        """
        env = os.environ.get
        if endpoint is None:
            endpoint = env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL") or ""
        if endpoint:
            parts = urlsplit(endpoint)
            if "@" in parts.netloc:
                raise InputError(
                    "AWS_ENDPOINT_URL has credentials in it; put them into AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY instead."
                )
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise InputError(f"AWS_ENDPOINT_URL is '{endpoint}'; it must look like https://host:port.")
        self.bucket = bucket
        self.endpoint = endpoint
        self.region = region or env("AWS_REGION") or env("AWS_DEFAULT_REGION") or "us-east-1"
        self._client: Any = None
        self._filesystem: Any = None
        self._seen = self._answered = False
        self._lock = Lock()

    def reduce(self) -> tuple[Any, ...]:
        return _arrived, self.bucket, self.endpoint, self.region

    def uri(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}" if prefix else f"s3://{self.bucket}"

    def read(self, key: str, limit: int) -> bytes:
        def fetch(client: Any) -> bytes:
            response = client.get_object(Bucket=self.bucket, Key=key)
            if response["ContentLength"] > limit:
                response["Body"].close()
                raise too_large(f"'{self.uri(key)}'", response["ContentLength"], limit)
            # The body, too, is fetched inside: boto repeats a request, but not a body that breaks off half way.
            return response["Body"].read()

        return self._call("read", key, fetch)

    def write(self, key: str, data: bytes) -> None:
        meta = {"sha256": sha256(data)}
        if len(data) > MULTIPART_BYTES:
            extra = {"Metadata": meta}
            self._call(
                "write", key, lambda c: c.upload_fileobj(io.BytesIO(data), self.bucket, key, ExtraArgs=extra)
            )
        else:
            self._call(
                "write", key, lambda c: c.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata=meta)
            )

    def put_once(self, key: str, data: bytes) -> PutResult:
        digest = sha256(data)
        for attempt in range(ATTEMPTS):
            try:
                self._call("write", key, lambda c: self._put_new(c, key, data, digest))
                return "new"
            except _Taken:
                pass
            try:
                if self.digest(key) == digest:
                    return "same"
                raise conflict(f"'{self.uri(key)}'")
            except MissingError:
                # Another writer's conditional PUT is still under way (AWS answers 409), or it was deleted.
                time.sleep(0.2 * 2**attempt)
        raise InputError(
            f"Cannot write '{self.uri(key)}': other writers keep changing it; stop them and run again."
        )

    def _put_new(self, client: Any, key: str, data: bytes, digest: str) -> None:
        from botocore.exceptions import ClientError

        try:
            client.put_object(
                Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={"sha256": digest}
            )
        except ClientError as e:
            if _code(e) in _TAKEN or _code(e) in ("ConditionalRequestConflict", "409"):
                raise _Taken from None
            raise

    def exists(self, key: str) -> bool:
        try:
            self._call("read", key, lambda c: c.head_object(Bucket=self.bucket, Key=key))
            return True
        except MissingError:
            return False

    def digest(self, key: str) -> str:
        head = self._call("read", key, lambda c: c.head_object(Bucket=self.bucket, Key=key))
        recorded = head.get("Metadata", {}).get("sha256")
        return recorded or sha256(self.read(key, MAX_OBJECT_BYTES))

    def scan(self, prefix: str) -> Iterator[ObjectInfo]:
        options = {"Bucket": self.bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            page = self._call("list", prefix, lambda c: c.list_objects_v2(**options))
            for o in page.get("Contents", []):
                # Other tools leave empty objects that end in '/' to stand for folders.
                if not o["Key"].endswith("/"):
                    yield ObjectInfo(key=o["Key"], size=o["Size"])
            after = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not after or after == options.get("ContinuationToken"):
                return
            options["ContinuationToken"] = after

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda c: c.delete_object(Bucket=self.bucket, Key=key))

    def check(self) -> None:
        self._call("list", "", lambda c: c.list_objects_v2(Bucket=self.bucket, MaxKeys=1))

    def filesystem(self) -> tuple[Any, str]:
        import pyarrow.fs as pafs

        self.check()
        if self._filesystem is None:
            options: dict[str, Any] = {}
            if self.endpoint:
                parts = urlsplit(self.endpoint)
                options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
            # No access_key here: it would be part of the filesystem's pickle; Arrow finds it as boto3 does.
            self._filesystem = pafs.S3FileSystem(
                region=self.region,
                connect_timeout=CONNECT_SECONDS,
                request_timeout=READ_SECONDS,
                # The first contact was ours, above; about a minute, as Arrow has no time limit to set.
                retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ARROW_ATTEMPTS),
                **options,
            )
        return self._filesystem, self.bucket

    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
        return self._client

    def worker_env(self) -> dict[str, str]:
        env = {k: os.environ[k] for k in _WORKER_ENV if os.environ.get(k)}
        if self.endpoint:
            env["AWS_ENDPOINT_URL"] = self.endpoint
        return env | {"AWS_REGION": self.region}

    def _connect(self) -> Any:
        try:
            from boto3.session import Session
            from botocore.config import Config
        except ImportError:
            raise InputError(
                "s3:// addresses need boto3, which is not installed; pip install boto3."
            ) from None
        options: dict[str, Any] = {}
        if self.endpoint:
            # Checksum trailers of newer boto3 versions are unknown to many compatible servers.
            options = {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            s3={"addressing_style": "path" if self.endpoint else "auto"},
            max_pool_connections=32,
            **options,
        )
        try:
            # A session of our own: boto3's default one is not safe to build in several threads.
            return Session().client(
                "s3", region_name=self.region, endpoint_url=self.endpoint or None, config=config
            )
        except Exception as e:
            raise self._sentence(e, "open", "") from None

    def _call(self, verb: str, key: str, action: Callable[[Any], _T]) -> _T:
        """Run one request, again and again while the store is away; every failure becomes one sentence."""
        client = self.client()
        began = time.monotonic()
        for attempt in count():
            try:
                if not self._seen:
                    # Once: HEAD cannot tell a missing bucket from a missing object, and some servers make a
                    # bucket for a write to a mistyped name.
                    client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
                    self._seen = self._answered = True
                return action(client)
            except Exception as e:
                if type(e).__module__.split(".")[0] not in ("boto3", "botocore", "s3transfer", "urllib3"):
                    raise
                if _code(e) in _MISSING:
                    raise MissingError(
                        f"'{self.uri(key)}' does not exist; check the storage address and run name, or run the "
                        "step that makes it."
                    ) from None
                left = began + PATIENCE_SECONDS - time.monotonic()
                if not (self._answered and _passes(e) and left > 0):
                    raise self._sentence(e, verb, key) from None
                logger.warning(
                    "%s cannot %s '%s' now (%s); trying for another %.0f s.",
                    self.endpoint or "AWS", verb, self.uri(key), _code(e) or type(e).__name__, left,
                )  # fmt: skip
                # Not all workers at once.
                time.sleep(min(left, random.uniform(0.1, 0.3) * 2 ** min(attempt, 5)))
        raise AssertionError("unreachable")

    def _sentence(self, error: Exception, verb: str, key: str) -> InputError:
        from botocore import exceptions as bx

        where, server = self.uri(key), self.endpoint or f"AWS ({self.region})"
        code = _code(error)
        if code == "NoSuchBucket":
            return InputError(
                f"Bucket '{self.bucket}' does not exist on {server}; create it or correct the s3:// address."
            )
        if code in _DENIED or isinstance(error, bx.TokenRetrievalError | bx.CredentialRetrievalError):
            return InputError(
                f"{server} refused to {verb} '{where}' with the credentials in use "
                f"({code or 'not retrievable'}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the "
                "bucket's permissions."
            )
        if code in ("ExpiredToken", "RequestTimeTooSkewed"):
            return InputError(
                f"{server} refused to {verb} '{where}' ({code}); renew the credentials and check this "
                "machine's clock."
            )
        if code in _ELSEWHERE:
            return InputError(
                f"Bucket '{self.bucket}' is not in region '{self.region}'; set AWS_REGION to the bucket's "
                "region."
            )
        if code in ("NotImplemented", "501"):
            return InputError(
                f"{server} cannot {verb} '{where}' safely (it lacks conditional PUT); use an S3 server that "
                "has If-None-Match, such as AWS S3, SeaweedFS or MinIO."
            )
        if isinstance(error, bx.NoCredentialsError | bx.PartialCredentialsError):
            return InputError(
                f"There are no credentials for '{where}'; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "(on a cluster where Ray is started, on every node), or run on machines with a role."
            )
        if isinstance(error, bx.SSLError):
            return InputError(
                f"{server} has no certificate this machine trusts; use http:// for a local server or set "
                "AWS_CA_BUNDLE."
            )
        if isinstance(error, bx.HTTPClientError | bx.IncompleteReadError | bx.ConnectionError):
            return InputError(
                f"No (whole) answer from {server} when trying to {verb} '{where}' again and again; check "
                "that the server runs and that AWS_ENDPOINT_URL is right."
            )
        if isinstance(error, bx.ParamValidationError | bx.InvalidRegionError):
            return InputError(
                f"'{where}' in region '{self.region}' is no valid S3 address; correct the name."
            )
        return InputError(
            f"{server} could not {verb} '{where}' ({code or type(error).__name__}); check the server's log "
            "and run again."
        )


class _Taken(Exception):
    """There is an object under the key already, or one is being written."""


def _arrived(bucket: str, endpoint: str, region: str) -> S3Store:
    """The store in the process that it was sent to: the sender has made its first contact."""
    store = S3Store(bucket, endpoint, region)
    store._answered = True
    return store


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    from botocore import exceptions as bx

    if isinstance(error, bx.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _code(error) in _PASSING or (status >= 500 and status != 501)
    lost = bx.HTTPClientError | bx.IncompleteReadError | bx.ConnectionError
    return isinstance(error, lost) and not isinstance(error, bx.SSLError)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
