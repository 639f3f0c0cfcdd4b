"""Log files that clients uploaded: noted for the operators."""

from __future__ import annotations

import secrets

from imserver.actions.groups import check_page
from imserver.actions.words import check_word
from imserver.clock import now_ms
from imserver.constants import PLATFORM_NAME
from imserver.errors import ArgsError, RecordNotFound
from imserver.protocol.gen.third_pb2 import LogInfo, SearchLogsReq, SearchLogsResp, UploadLogsReq
from imserver.storage.client_logs import ClientLogs
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.users import Users

MOST_PER_REQUEST = 1000
MOST_TEXT_CHARS = 2048


def check_upload(request: UploadLogsReq) -> None:
    """Raises ArgsError."""
    if request.platform not in PLATFORM_NAME:
        raise ArgsError("platform must be 1 to 11")
    if not 1 <= len(request.fileURLs) <= MOST_PER_REQUEST:
        raise ArgsError(f"fileURLs must be 1 to {MOST_PER_REQUEST} files")
    texts = [request.appFramework, request.version, request.ex]
    for file in request.fileURLs:
        if not file.URL:
            raise ArgsError("a file has no URL")
        texts += [file.filename, file.URL]
    if any(len(text) > MOST_TEXT_CHARS for text in texts):
        raise ArgsError(f"a text is longer than {MOST_TEXT_CHARS} characters")


async def do_upload(user_id: str, request: UploadLogsReq) -> None:
    """One record a file. Done twice, there are two."""
    now = now_ms()
    await ClientLogs(get_async_mongo()).add(
        [
            {
                "log_id": secrets.token_hex(10),
                "user_id": user_id,
                "platform": PLATFORM_NAME[request.platform],
                "url": file.URL,
                "filename": file.filename,
                "create_time": now,
                "system_type": request.appFramework,
                "version": request.version,
                "ex": request.ex,
            }
            for file in request.fileURLs
        ]
    )


async def check_delete(log_ids: list[str]) -> None:
    """Raises ArgsError, RecordNotFound."""
    if not 1 <= len(log_ids) <= MOST_PER_REQUEST:
        raise ArgsError(f"logIDs must be 1 to {MOST_PER_REQUEST} ids")
    unknown = set(log_ids) - await ClientLogs(get_async_mongo()).find_existing(log_ids)
    if unknown:
        raise RecordNotFound(f"no such logs: {', '.join(sorted(unknown)[:10])}")


async def do_delete(log_ids: list[str]) -> None:
    """The records; the files stay where they are. May run twice."""
    await ClientLogs(get_async_mongo()).delete(log_ids)


async def search(request: SearchLogsReq) -> SearchLogsResp:
    """Times in ms; an end of 0 is now. Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    check_word("keyword", request.keyword)
    end_ms = request.endTime or now_ms()
    if request.startTime > end_ms:
        raise ArgsError("startTime is after endTime")
    logs = ClientLogs(get_async_mongo())
    total, found = await logs.search(request.keyword, request.startTime, end_ms, skip, limit)
    users = await Users(get_async_mongo()).find(record["user_id"] for record in found)
    nicknames = {user["user_id"]: user["nickname"] for user in users}
    return SearchLogsResp(
        total=total, logsInfos=[_to_info(record, nicknames.get(record["user_id"], "")) for record in found]
    )


def _to_info(record: Document, nickname: str) -> LogInfo:
    return LogInfo(
        userID=record["user_id"],
        platform=record["platform"],
        url=record["url"],
        createTime=record["create_time"],
        nickname=nickname,
        logID=record["log_id"],
        filename=record["filename"],
        systemType=record["system_type"],
        ex=record["ex"],
        version=record["version"],
    )
