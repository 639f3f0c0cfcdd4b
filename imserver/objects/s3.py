"""Files in an S3-compatible store (AWS, MinIO, Ceph, R2 …). Clients talk to it directly, with presigned URLs.

The bucket needs a CORS rule for browsers (docs/objects.md). Parts are compared by their ETags, which are MD5s unless the bucket
encrypts with keys of KMS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import boto3
from botocore.client import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from imserver.conf import get_config
from imserver.objects.base import Form, ObjectStore, PartsMissing, Shown, StoreUnavailable, Upload
from imserver.runtime import one_a_process

#: Before each key, so that a bucket may hold other things too.
PREFIX = "openim/"
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 20, 3


class S3Store(ObjectStore):
    name = "s3"
    most_form_bytes = 5 * 1024**3

    def __init__(self) -> None:
        config = get_config()
        self._bucket = config.s3_bucket
        self._client = _client(config.s3_endpoint)
        #: Only signs: what a signature covers includes the host that the client will ask.
        self._signer = _client(config.s3_public_endpoint or config.s3_endpoint)

    def begin(self, upload_id: str, key: str, content_type: str) -> str:
        with _as_unavailable():
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=PREFIX + key, ContentType=content_type, Metadata={"upload": upload_id}
            )
        return str(answer["UploadId"])

    def sign_part(self, upload: Upload, number: int, seconds: int) -> str:
        # The length is signed, so the store itself refuses a part that is too long.
        params = {
            "Bucket": self._bucket,
            "Key": PREFIX + upload.key,
            "UploadId": upload.store_id,
            "PartNumber": number,
            "ContentLength": upload.bytes_of(number),
        }
        with _as_unavailable():
            return str(self._signer.generate_presigned_url("upload_part", Params=params, ExpiresIn=seconds))

    def complete(self, upload: Upload, md5s: list[str]) -> None:
        with _as_unavailable():
            try:
                found = self._list_parts(upload)
            except self._client.exceptions.NoSuchUpload as error:
                # Finished by an earlier call whose answer got lost: then the file is there.
                if self.find_size(upload.key) == upload.size:
                    return
                raise PartsMissing(list(range(1, len(md5s) + 1))) from error
            wanted = {number: (md5, upload.bytes_of(number)) for number, md5 in enumerate(md5s, start=1)}
            missing = [number for number, part in wanted.items() if found.get(number) != part]
            if missing:
                raise PartsMissing(missing)
            parts: Any = [{"PartNumber": number, "ETag": f'"{md5}"'} for number, (md5, _) in wanted.items()]
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=PREFIX + upload.key,
                UploadId=upload.store_id,
                MultipartUpload={"Parts": parts},
            )

    def _list_parts(self, upload: Upload) -> dict[int, tuple[str, int]]:
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=PREFIX + upload.key, UploadId=upload.store_id
        )
        return {
            part["PartNumber"]: (part["ETag"].strip('"').lower(), part["Size"])
            for page in pages
            for part in page.get("Parts", [])
        }

    def abort(self, upload: Upload) -> None:
        if not upload.store_id:
            return
        with _as_unavailable(), contextlib.suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=PREFIX + upload.key, UploadId=upload.store_id)

    def sign_form(self, key: str, size: int, content_type: str, seconds: int) -> Form:
        fields = {"success_action_status": "204", **({"Content-Type": content_type} if content_type else {})}
        conditions: list[Any] = [{name: value} for name, value in fields.items()]
        conditions.append(["content-length-range", size, size])
        with _as_unavailable():
            form = self._signer.generate_presigned_post(
                Bucket=self._bucket, Key=PREFIX + key, Fields=fields, Conditions=conditions, ExpiresIn=seconds
            )
        return Form(form["url"], form["fields"])

    def find_size(self, key: str) -> int | None:
        with _as_unavailable():
            try:
                return int(self._client.head_object(Bucket=self._bucket, Key=PREFIX + key)["ContentLength"])
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                    return None
                raise

    def sign_get(self, key: str, shown: Shown, seconds: int) -> str:
        kind = "inline" if shown.is_inline else "attachment"
        params = {
            "Bucket": self._bucket,
            "Key": PREFIX + key,
            "ResponseContentType": shown.content_type,
            "ResponseContentDisposition": f"{kind}; filename*=UTF-8''{quote(shown.file_name, safe='')}",
        }
        with _as_unavailable():
            return str(self._signer.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds))

    def remove(self, key: str) -> None:
        with _as_unavailable():
            self._client.delete_object(Bucket=self._bucket, Key=PREFIX + key)


def _client(endpoint: str) -> Any:
    config = get_config()
    return boto3.client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=config.s3_region,
        aws_access_key_id=config.s3_access_key or None,
        aws_secret_access_key=config.s3_secret_key or None,
        config=ClientConfig(
            signature_version="s3v4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": ATTEMPTS},
            # Checksums of AWS's own would have to be sent by clients that know nothing of them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # With an address of one's own, buckets are rarely host names.
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


@one_a_process
def s3_store() -> S3Store:
    """The process's; its clients may be used by several threads."""
    return S3Store()


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise StoreUnavailable(f"the object store refuses {error.operation_name}: {code}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"the object store cannot be reached: {type(error).__name__}") from error
