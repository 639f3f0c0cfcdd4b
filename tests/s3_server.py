"""A real S3-compatible HTTP server on loopback, for tests."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.exceptions import EndpointConnectionError

from imserver.devservices.ports import find_free_ports

START_SECONDS = 60
POLL_SECONDS = 0.1
BUCKET, ACCESS_KEY, SECRET_KEY = "files", "access", "secret"


class S3Server:
    """Forgets everything when it stops."""

    def __init__(self, folder: Path) -> None:
        (port,) = find_free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._log = folder / "s3.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    @property
    def settings(self) -> dict[str, str]:
        """Of an installation that keeps its files here."""
        return {
            "OBJECT_STORE": "s3",
            "S3_ENDPOINT": self.url,
            "S3_BUCKET": BUCKET,
            "S3_ACCESS_KEY": ACCESS_KEY,
            "S3_SECRET_KEY": SECRET_KEY,
        }

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def uploads(self) -> list[str]:
        """Keys of unfinished uploads."""
        return [item["Key"] for item in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.create_bucket(Bucket=BUCKET)
            except self.client.exceptions.BucketAlreadyOwnedByYou:
                return self
            except EndpointConnectionError:
                assert time.monotonic() < deadline, self._log.read_text()
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(POLL_SECONDS)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
