"""A client that uploads files as OpenIM's SDKs do, for tests."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Iterator
from typing import Any

import httpx

from tests.client import Api

Json = dict[str, Any]
PART_BYTES = 5 * 1024 * 1024
UPLOAD_SECONDS = 30


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def cut(data: bytes, size: int = PART_BYTES) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def hash_of(parts: list[bytes]) -> str:
    return md5(",".join(md5(part) for part in parts).encode())


class Uploader:
    """One user. ``http`` goes to the store, as a browser would: without token and operationID."""

    def __init__(self, api: Api, user_id: str, token: str, http: httpx.AsyncClient) -> None:
        self.api, self.user_id, self.token, self.http = api, user_id, token, http

    @classmethod
    async def make(cls, api: Api, names: Iterator[str], http: httpx.AsyncClient) -> Uploader:
        user_id = next(names)
        await api.register(user_id)
        return cls(api, user_id, await api.token(user_id, 5), http)

    async def call(self, route: str, body: Json, **headers: str) -> Json:
        envelope = await self.post(route, body, **headers)
        assert envelope["errCode"] == 0, envelope
        return dict(envelope["data"])

    async def post(self, route: str, body: Json, **headers: str) -> Json:
        return await self.api.post(f"/object/{route}", body, token=self.token, **headers)

    async def code(self, route: str, body: Json) -> int:
        return int((await self.post(route, body))["errCode"])

    def name(self, suffix: str = ".bin") -> str:
        return f"{self.user_id}/{secrets.token_hex(8)}{suffix}"

    def initiation(self, data: bytes, name: str, **changes: Any) -> Json:
        parts = cut(data)
        known: Json = {"hash": hash_of(parts), "size": len(data), "partSize": PART_BYTES, "maxParts": 20}
        return {**known, "name": name, "cause": "test", "contentType": "application/x-test", **changes}

    async def initiate(self, data: bytes, name: str, **changes: Any) -> Json:
        return await self.call("initiate_multipart_upload", self.initiation(data, name, **changes))

    async def put(self, part: Json, data: Any, **headers: str) -> httpx.Response:
        return await self.http.put(part["url"], content=data, headers=headers)

    async def put_all(self, upload: Json, data: bytes) -> None:
        for part, content in zip(upload["sign"]["parts"], cut(data), strict=True):
            answer = await self.put(part, content)
            assert answer.status_code == 200, answer.text

    def completion(self, upload: Json, data: bytes, name: str, content_type: str = "application/x-test") -> Json:
        parts = [md5(part) for part in cut(data)]
        return {"uploadID": upload["uploadID"], "parts": parts, "name": name, "contentType": content_type}

    async def upload(self, data: bytes, name: str, content_type: str = "application/x-test") -> str:
        """Returns the file's URL."""
        begun = await self.initiate(data, name, contentType=content_type)
        if begun["upload"] is None:
            return str(begun["url"])
        await self.put_all(begun["upload"], data)
        completed = self.completion(begun["upload"], data, name, content_type)
        return str((await self.call("complete_multipart_upload", completed))["url"])

    async def read(self, url: str, **headers: str) -> httpx.Response:
        return await self.http.get(url, headers=headers, follow_redirects=True)


def some_bytes(count: int) -> bytes:
    """Others each time, so that no other test has uploaded them."""
    return b"".join(itertools.islice(itertools.repeat(secrets.token_bytes(1024)), -(-count // 1024)))[:count]
