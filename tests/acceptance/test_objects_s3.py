"""/object with an S3-compatible store: clients talk to the store itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from imserver.devservices.servers import EmbeddedServers
from tests.client import Api
from tests.s3_server import S3Server
from tests.uploads import PART_BYTES, UPLOAD_SECONDS, Uploader, cut, hash_of, some_bytes
from tests.web_stack import WebStack

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def web(s3: S3Server, servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebStack]:
    settings = {**s3.settings, "OBJECT_TYPES": "image/*, video/mp4, text/html"}
    with WebStack(servers, tmp_path_factory.mktemp("objects-s3"), 1, **settings) as running:
        yield running


@pytest.fixture
async def alice(web: WebStack, names: Iterator[str]) -> AsyncIterator[Uploader]:
    async with Api(web.web_url) as api, httpx.AsyncClient(timeout=UPLOAD_SECONDS) as http:
        yield await Uploader.make(api, names, http)


async def test_a_file_in_parts_goes_to_the_store_and_is_read_from_there(alice: Uploader, s3: S3Server) -> None:
    data, name = some_bytes(PART_BYTES + 777), alice.name(".png")

    url = await alice.upload(data, name, "image/png")

    redirect = await alice.http.get(url)
    assert redirect.status_code == 302
    assert redirect.headers["location"].startswith(f"{s3.url}/files/openim/")
    answer = await alice.http.get(redirect.headers["location"])
    assert answer.content == data
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("inline;")
    assert f"openim/{hash_of(cut(data))}" in s3.keys()  # noqa: SIM118  (a method of the test's)
    assert (await alice.initiate(data, alice.name(), contentType="image/png"))["upload"] is None


async def test_missing_and_wrong_parts_are_refused_until_they_are_right(alice: Uploader) -> None:
    data, name = some_bytes(PART_BYTES + 100), alice.name(".mp4")
    upload = (await alice.initiate(data, name, contentType="video/mp4", maxParts=1))["upload"]
    completion = alice.completion(upload, data, name, "video/mp4")
    (second,) = (await alice.call("auth_sign", {"uploadID": upload["uploadID"], "partNumbers": [2]}))["parts"]

    await alice.put(upload["sign"]["parts"][0], cut(data)[0])
    missing = await alice.post("complete_multipart_upload", completion)
    await alice.put(second, bytes(100))
    wrong = await alice.post("complete_multipart_upload", completion)
    await alice.put(second, cut(data)[1])
    url = (await alice.call("complete_multipart_upload", completion))["url"]

    assert (missing["errCode"], wrong["errCode"]) == (1001, 1001)
    assert missing["errDlt"].endswith(": 2")
    assert (await alice.read(url)).content == data
    assert (await alice.call("complete_multipart_upload", completion))["url"] == url


async def test_a_completion_whose_answer_got_lost_may_be_repeated(alice: Uploader, web: WebStack) -> None:
    data, name = some_bytes(1000), alice.name(".png")
    upload = (await alice.initiate(data, name, contentType="image/png"))["upload"]
    await alice.put_all(upload, data)
    completion = alice.completion(upload, data, name, "image/png")
    await alice.call("complete_multipart_upload", completion)

    # As if the process had died between the store's answer and MongoDB.
    web.database["object_upload"].update_one({"upload_id": upload["uploadID"]}, {"$set": {"is_done": False}})
    web.database["object"].delete_one({"name": name})
    url = (await alice.call("complete_multipart_upload", completion))["url"]

    assert (await alice.read(url)).content == data


async def test_types_that_are_not_taken_are_refused_and_active_ones_only_saved(alice: Uploader) -> None:
    body = alice.initiation(some_bytes(10), alice.name(), contentType="application/zip")

    assert await alice.code("initiate_multipart_upload", body) == 1001
    answer = await alice.read(await alice.upload(some_bytes(10), alice.name(".html"), "text/html"))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")


async def test_a_form_uploads_one_file_of_the_announced_size(alice: Uploader) -> None:
    data, name = some_bytes(7000), alice.name(".png")
    begun = await alice.call("initiate_form_data", {"name": name, "size": len(data), "contentType": "image/png"})

    too_soon = await alice.code("complete_form_data", {"id": begun["id"]})
    sent = await alice.http.post(begun["url"], data=begun["formData"], files={begun["file"]: data})
    url = (await alice.call("complete_form_data", {"id": begun["id"]}))["url"]

    assert too_soon == 1001
    assert sent.status_code in begun["successCodes"]
    assert (await alice.read(url)).content == data


async def test_a_store_that_is_away_is_said_and_nothing_is_kept(
    servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory, names: Iterator[str]
) -> None:
    folder = tmp_path_factory.mktemp("no-s3")
    away = S3Server(folder)  # never started
    with WebStack(servers, folder, 1, **away.settings) as web:
        async with Api(web.web_url) as api, httpx.AsyncClient(timeout=UPLOAD_SECONDS) as http:
            alice = await Uploader.make(api, names, http)
            envelope = await alice.post("initiate_multipart_upload", alice.initiation(some_bytes(10), alice.name()))

        assert (envelope["errCode"], envelope["errMsg"]) == (90004, "NetworkError")
        assert "secret" not in envelope["errDlt"]
        assert web.database["object"].count_documents({}) == 0
