"""/object with files on this host's disk, as SDKs and browsers use it, under both servers (protocol: rest.md 5.3)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from imserver.devservices.servers import EmbeddedServers
from tests.client import Api
from tests.uploads import PART_BYTES, UPLOAD_SECONDS, Uploader, cut, md5, some_bytes
from tests.web_stack import WebStack

pytestmark = pytest.mark.acceptance

ORIGIN = {"Origin": "http://app.example"}
#: As the official Python SDK uploads; a process of its own, because it registers the same protobuf messages.
SDK_UPLOAD = """
import sys
from openim_sdk.media import upload_file
api, token, user_id, path = sys.argv[1:]
def refuse(*facts): return RuntimeError(repr(facts))
print(upload_file(api_addr=api, token=token, timeout_seconds=20, login_user_id=user_id, operation_id_factory=lambda: "op",
    file_path=path, name="sdk.bin", cause="msg-file", make_http_error=refuse, make_sdk_error=refuse))
"""


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def web(
    request: pytest.FixtureRequest, servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebStack]:
    folder = tmp_path_factory.mktemp(f"objects-{request.param}")
    with WebStack(servers, folder, GATEWAY_SERVER=request.param, OBJECT_MAX_MB="20") as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=UPLOAD_SECONDS) as client:
        yield client


@pytest.fixture
async def api(web: WebStack) -> AsyncIterator[Api]:
    async with Api(web.web_url) as running:
        yield running


@pytest.fixture
async def alice(api: Api, names: Iterator[str], http: httpx.AsyncClient) -> Uploader:
    return await Uploader.make(api, names, http)


# -- uploading in parts


async def test_a_file_in_three_parts_is_read_back_whole_and_in_ranges(alice: Uploader, web: WebStack) -> None:
    data, name = some_bytes(2 * PART_BYTES + 777), alice.name(".mp4")

    url = await alice.upload(data, name, "video/mp4")

    assert url == f"{web.web_url}/object/{name}"
    redirect = await alice.http.get(url)
    assert (redirect.status_code, redirect.headers["access-control-allow-origin"]) == (302, "*")
    whole = await alice.read(url, **ORIGIN)
    assert whole.content == data
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["access-control-allow-origin"] == "*"
    assert whole.headers["content-disposition"].startswith("inline;")
    size = len(data)
    for asked, begin, end in (("0-9", 0, 10), (f"{size - 5}-", size - 5, size), ("-7", size - 7, size)):
        part = await alice.read(url, Range=f"bytes={asked}")
        assert (part.status_code, part.content) == (206, data[begin:end])
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
    assert (await alice.read(url, Range=f"bytes={size}-")).status_code == 416
    etag = whole.headers["etag"]
    assert (await alice.read(url, **{"If-None-Match": etag})).status_code == 304
    assert (await alice.read(url, **{"If-Range": '"another"', "Range": "bytes=0-1"})).content == data
    head = await alice.http.head(url, follow_redirects=True)
    assert (head.headers["content-length"], head.content) == (str(size), b"")


async def test_content_that_is_here_already_needs_no_upload(alice: Uploader, names: Iterator[str]) -> None:
    data = some_bytes(4000)
    await alice.upload(data, alice.name())
    bob = await Uploader.make(alice.api, names, alice.http)
    name = bob.name()

    begun = await bob.initiate(data, name)

    assert begun["upload"] is None
    assert begun["url"].endswith(f"/object/{name}")
    assert (await bob.read(begun["url"])).content == data


async def test_missing_and_wrong_parts_are_refused_until_they_are_right(alice: Uploader) -> None:
    data, name = some_bytes(PART_BYTES + 100), alice.name()
    upload = (await alice.initiate(data, name))["upload"]
    first, second = upload["sign"]["parts"]
    completion = alice.completion(upload, data, name)

    await alice.put(first, cut(data)[0])
    missing = await alice.post("complete_multipart_upload", completion)
    await alice.put(second, bytes(100))
    wrong = await alice.post("complete_multipart_upload", completion)
    other_hash = await alice.code("complete_multipart_upload", {**completion, "parts": [md5(b"1"), md5(b"2")]})
    too_few = await alice.code("complete_multipart_upload", {**completion, "parts": completion["parts"][:1]})
    assert (await alice.http.get(f"{alice.api.web_url}/object/{name}")).status_code == 404
    await alice.put(second, cut(data)[1])
    url = (await alice.call("complete_multipart_upload", completion))["url"]

    assert (missing["errCode"], wrong["errCode"], other_hash, too_few) == (1001, 1001, 1001, 1001)
    assert missing["errDlt"].endswith(": 2")
    assert wrong["errDlt"].endswith(": 2")
    assert (await alice.read(url)).content == data
    assert (await alice.call("complete_multipart_upload", completion))["url"] == url
    assert (await alice.put(first, cut(data)[0])).status_code == 410


async def test_a_part_of_another_length_is_refused_and_leaves_nothing(alice: Uploader, web: WebStack) -> None:
    data, name = some_bytes(3000), alice.name()
    upload = (await alice.initiate(data, name))["upload"]
    (part,) = upload["sign"]["parts"]

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(1024)

    assert (await alice.put(part, data + b"x")).status_code == 400
    assert (await alice.put(part, data[:-1])).status_code == 400
    assert (await alice.put(part, endless())).status_code == 400
    assert list((web.folder / "data/objects/parts" / upload["uploadID"]).iterdir()) == []


async def test_a_body_longer_than_any_part_is_not_even_read(alice: Uploader, web: WebStack) -> None:
    (part,) = (await alice.initiate(some_bytes(3000), alice.name()))["upload"]["sign"]["parts"]
    url = urlsplit(part["url"])
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"

    writer.write(head.encode())
    await writer.drain()
    answer = await asyncio.wait_for(reader.readline(), UPLOAD_SECONDS)

    assert b" 413 " in answer
    writer.close()


async def test_a_changed_or_unsigned_url_is_refused(alice: Uploader) -> None:
    data, name = some_bytes(3000), alice.name()
    upload = (await alice.initiate(data, name))["upload"]
    (part,) = upload["sign"]["parts"]
    other = (await alice.initiate(some_bytes(3000), alice.name()))["upload"]
    file_url = (await alice.http.get(await alice.upload(some_bytes(10), alice.name()))).headers["location"]

    for url in (
        part["url"].replace("size=3000", "size=3001"),
        part["url"].replace(upload["uploadID"], other["uploadID"]),
        part["url"].replace("/1?", "/2?"),
        part["url"].partition("?")[0],
        part["url"] + "&more=1",
    ):
        assert (await alice.http.put(url, content=data)).status_code == 403, url
    for url in (
        file_url.replace("inline=0", "inline=1"),
        file_url.partition("?")[0],
        f"{alice.api.web_url}/stored/file/..%2F..%2Fsecret",
    ):
        assert (await alice.http.get(url)).status_code in (403, 404), url
    assert (await alice.http.delete(file_url)).status_code == 405


async def test_browsers_may_put_parts_from_anywhere(alice: Uploader) -> None:
    data = some_bytes(500)
    (part,) = (await alice.initiate(data, alice.name()))["upload"]["sign"]["parts"]
    asked = {**ORIGIN, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}

    preflight = await alice.http.options(part["url"], headers=asked)
    answer = await alice.put(part, data, **ORIGIN)

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-methods"] == "*"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["etag"] == f'"{md5(data)}"'


async def test_two_uploads_of_one_file_at_once_both_succeed(alice: Uploader, names: Iterator[str]) -> None:
    data = some_bytes(PART_BYTES + 9)
    bob = await Uploader.make(alice.api, names, alice.http)
    begun = [(who, who.name()) for who in (alice, bob)]
    uploads = [(await who.initiate(data, name))["upload"] for who, name in begun]

    await asyncio.gather(*(who.put_all(upload, data) for (who, _), upload in zip(begun, uploads, strict=True)))
    urls = await asyncio.gather(
        *(
            who.call("complete_multipart_upload", who.completion(upload, data, name))
            for (who, name), upload in zip(begun, uploads, strict=True)
        )
    )

    for answer in urls:
        assert (await alice.read(answer["url"])).content == data


async def test_an_upload_goes_on_after_the_server_was_killed(alice: Uploader, web: WebStack) -> None:
    data, name = some_bytes(PART_BYTES + 50), alice.name()
    upload = (await alice.initiate(data, name))["upload"]
    await alice.put(upload["sign"]["parts"][0], cut(data)[0])

    web.restart_web()
    signed = await alice.call("auth_sign", {"uploadID": upload["uploadID"], "partNumbers": [2]})
    await alice.put(signed["parts"][0], cut(data)[1])
    url = (await alice.call("complete_multipart_upload", alice.completion(upload, data, name)))["url"]

    assert (await alice.read(url)).content == data


async def test_the_python_sdk_uploads_a_file(alice: Uploader, tmp_path: Path) -> None:
    data, path = some_bytes(PART_BYTES + 12345), tmp_path / "file.png"
    path.write_bytes(data)
    command = [sys.executable, "-c", SDK_UPLOAD, alice.api.web_url, alice.token, alice.user_id, str(path)]

    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    answer = await alice.read(done.stdout.strip())
    assert answer.content == data
    assert answer.headers["content-type"] == "image/png"


# -- who may do what


async def test_names_begin_with_the_user_id_unless_an_admin_gives_them(alice: Uploader) -> None:
    data = some_bytes(100)
    bad = {
        1002: ["somebody/x.png", "x.png", f"/{alice.user_id}/x", f"{alice.user_id}x/y"],
        1001: ["", f"{alice.user_id}/", f"{alice.user_id}/../x", f"{alice.user_id}/./x", f"{alice.user_id}//x"],
    }
    bad[1001] += [f"{alice.user_id}/a\nb", f"{alice.user_id}/a\\b", f"{alice.user_id}/{'ü' * 600}"]
    bad[1002].remove(f"/{alice.user_id}/x")

    for code, names in bad.items():
        for name in names:
            assert await alice.code("initiate_multipart_upload", alice.initiation(data, name)) == code, name
            form = {"name": name, "size": 100}
            assert await alice.code("initiate_form_data", form) == code, name
    envelope = await alice.api.post("/object/initiate_multipart_upload", alice.initiation(data, "logos/app.png"))
    assert envelope["errCode"] == 0


#: As macOS and phones name pictures: narrow and ideographic spaces, an emoji of three people.
FILE_NAMES = (
    "Bild 9.41\u202fAM.png",
    "写真\u3000一.png",
    "a\u00a0b.png",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
)


@pytest.mark.parametrize("file_name", FILE_NAMES)
async def test_files_may_be_called_what_their_owners_call_them(alice: Uploader, file_name: str) -> None:
    data = some_bytes(40)

    url = await alice.upload(data, f"{alice.user_id}/{file_name}", "image/png")

    answer = await alice.read(url)
    assert answer.content == data
    assert quote(file_name) in answer.headers["content-disposition"]


#: What a client says a file is, and as what it is handed out.
CONTENT_TYPES = {
    "mp3": "video/mp4",
    "no type": "video/mp4",
    "video/*": "video/mp4",
    "text/html\r\nSet-Cookie: a=b": "video/mp4",
    "video/webm;codecs=vp8,opus": "video/webm;codecs=vp8,opus",
    'video/mp4; codecs="avc1.42E01E, mp4a.40.2"': 'video/mp4; codecs="avc1.42E01E, mp4a.40.2"',
}


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
async def test_what_is_no_content_type_is_guessed_from_the_name(alice: Uploader, content_type: str) -> None:
    url = await alice.upload(some_bytes(40), alice.name(".mp4"), content_type)

    answer = await alice.read(url)
    assert answer.headers["content-type"] == CONTENT_TYPES[content_type]
    assert "set-cookie" not in answer.headers


async def test_the_first_answer_signs_as_many_parts_as_were_asked_for(alice: Uploader) -> None:
    """The JavaScript SDK asks for all with -1; a file of one part needs no second request."""
    for size, wanted, signed in (
        (10, 0, 1),
        (2 * PART_BYTES + 1, 0, 0),
        (2 * PART_BYTES + 1, -1, 3),
        (2 * PART_BYTES, 1, 1),
    ):
        begun = await alice.initiate(some_bytes(size), alice.name(), maxParts=wanted)
        parts = begun["upload"]["sign"].get("parts") or []
        assert [part["partNumber"] for part in parts] == list(range(1, signed + 1))


BAD_INITIATIONS: list[dict[str, Any]] = [
    {"size": 0},
    {"size": -1},
    {"size": 20 * 1024 * 1024 + 1},
    {"hash": ""},
    {"hash": "x" * 32},
    {"partSize": 1024},
    {"partSize": 17 * 1024 * 1024},
    {"cause": "x" * 300},
]


async def test_what_cannot_be_uploaded_is_refused_with_1001(alice: Uploader) -> None:
    for changes in BAD_INITIATIONS:
        body = alice.initiation(some_bytes(10), alice.name(), **changes)
        assert await alice.code("initiate_multipart_upload", body) == 1001, changes
    upload = (await alice.initiate(some_bytes(10), alice.name()))["upload"]
    for numbers in ([], [0], [2], [-1], [1, 1], list(range(1, 1002))):
        body = {"uploadID": upload["uploadID"], "partNumbers": numbers}
        assert await alice.code("auth_sign", body) == 1001, numbers
    for size in (0, -5, 21 * 1024 * 1024):
        assert await alice.code("part_size", {"size": size}) == 1001
    assert await alice.code("initiate_form_data", {"name": alice.name(), "size": 17 * 1024 * 1024}) == 1001
    assert await alice.code("access_url", {"name": alice.name(), "query": {"type": "video"}}) == 1001


async def test_limits_are_those_that_clients_cut_their_files_by(alice: Uploader) -> None:
    limit = await alice.call("part_limit", {})

    assert limit == {"minPartSize": PART_BYTES, "maxPartSize": 16 * 1024 * 1024, "maxNumSize": 10_000}
    assert await alice.call("part_size", {"size": 12_000_000}) == {"size": PART_BYTES}


async def test_uploads_are_their_users_and_end(alice: Uploader, names: Iterator[str], web: WebStack) -> None:
    bob = await Uploader.make(alice.api, names, alice.http)
    data, name = some_bytes(10), alice.name()
    upload = (await alice.initiate(data, name))["upload"]
    signing = {"uploadID": upload["uploadID"], "partNumbers": [1]}
    completion = alice.completion(upload, data, name)

    assert await bob.code("auth_sign", signing) == 1002
    assert await bob.code("complete_multipart_upload", completion) == 1002
    assert await bob.code("complete_form_data", {"id": upload["uploadID"]}) == 1002
    assert await alice.code("auth_sign", {**signing, "uploadID": "unknown"}) == 1004
    assert await alice.code("complete_multipart_upload", {**completion, "uploadID": ""}) == 1004
    assert await alice.code("complete_form_data", {"id": upload["uploadID"]}) == 1001
    web.database["object_upload"].update_one({"upload_id": upload["uploadID"]}, {"$set": {"expire_time": 1}})
    assert await alice.code("auth_sign", signing) == 1701
    assert await alice.code("complete_multipart_upload", completion) == 1701


# -- reading


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript"])
async def test_nothing_that_a_browser_would_run_is_opened_by_it(alice: Uploader, kind: str) -> None:
    url = await alice.upload(b"<script>alert(1)</script>" + some_bytes(8), alice.name(".html"), kind)

    answer = await alice.read(url)

    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["content-security-policy"].startswith("sandbox;")


async def test_a_file_keeps_its_name_and_unknown_ones_are_404(alice: Uploader, web: WebStack) -> None:
    name = f"{alice.user_id}/Grüße & ünïcode?#%.pdf"
    url = await alice.upload(some_bytes(50), name, "application/pdf")

    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%26" in (await alice.read(url)).headers["content-disposition"]
    data = await alice.call("access_url", {"name": name, "query": {"type": "image", "width": "640"}})
    assert (await alice.http.get(data["url"])).status_code == 200
    assert data["expireTime"] > 0
    assert (await alice.http.get(f"{web.web_url}/object/{alice.user_id}/none")).status_code == 404
    assert await alice.code("access_url", {"name": f"{alice.user_id}/none"}) == 1004
    posted = await alice.http.post(f"{web.web_url}/object/{alice.user_id}/none")
    assert posted.status_code == 404


async def test_who_reads_slowly_does_not_fill_the_servers_memory(alice: Uploader, web: WebStack) -> None:
    data = some_bytes(19 * 1024 * 1024)
    url = urlsplit((await alice.http.get(await alice.upload(data, alice.name()))).headers["location"])
    process = psutil.Process(web.pids["web"])
    before = process.memory_info().rss
    request = f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    sockets = [await asyncio.open_connection(url.hostname, url.port) for _ in range(8)]

    for reader, writer in sockets:
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
    for _ in range(20):
        await alice.call("part_limit", {})

    assert process.memory_info().rss - before < 70 * 1024 * 1024
    reader, _ = sockets[0]
    assert await asyncio.wait_for(reader.read(-1), UPLOAD_SECONDS) == data
    for _, writer in sockets:
        writer.transport.abort()


async def test_urls_name_the_host_that_the_client_asked(alice: Uploader) -> None:
    data, name = some_bytes(10), alice.name()
    body = alice.initiation(data, name)

    by_host = await alice.call("initiate_multipart_upload", body, Host="im.example:8080")
    by_proxy = await alice.call("initiate_multipart_upload", body, **{"X-Request-Api": "https://im.example/api"})

    assert by_host["upload"]["sign"]["parts"][0]["url"].startswith("http://im.example:8080/stored/part/")
    assert by_proxy["upload"]["sign"]["parts"][0]["url"].startswith("https://im.example/api/stored/part/")


# -- forms


async def test_a_form_uploads_one_file_of_the_announced_size(alice: Uploader) -> None:
    data, name = some_bytes(70_000), alice.name(".txt")
    begun = await alice.call("initiate_form_data", {"name": name, "size": len(data), "contentType": "text/plain"})

    too_soon = await alice.code("complete_form_data", {"id": begun["id"]})
    wrong = await alice.http.post(begun["url"], data=begun["formData"], files={begun["file"]: b"short"})
    nothing = await alice.http.post(begun["url"], data={"a": "b"})
    sent = await alice.http.post(begun["url"], data=begun["formData"], files={begun["file"]: data})
    url = (await alice.call("complete_form_data", {"id": begun["id"]}))["url"]

    assert (too_soon, wrong.status_code, nothing.status_code) == (1001, 400, 400)
    assert sent.status_code in begun["successCodes"]
    assert (await alice.read(url)).content == data
    assert (await alice.call("complete_form_data", {"id": begun["id"]}))["url"] == url
