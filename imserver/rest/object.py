"""/object: uploading files and reading them."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from imserver.actions import objects
from imserver.actions.failures import as_im_error
from imserver.errors import ArgsError, InternalError, RecordNotFound
from imserver.protocol.gen import third_pb2
from imserver.rest.decorators import CORS_HEADERS, Answer, Call, Who, get_api_url, route, unknown_route

logger = logging.getLogger(__name__)


@route(Who.ANY)
async def part_limit(call: Call) -> Answer:
    call.parse(third_pb2.PartLimitReq)
    return objects.part_limit()


@route(Who.ANY)
async def part_size(call: Call) -> Answer:
    return third_pb2.PartSizeResp(size=objects.part_size(call.parse(third_pb2.PartSizeReq).size))


@route(Who.ANY)
async def initiate_multipart_upload(call: Call) -> Answer:
    request = call.parse(third_pb2.InitiateMultipartUploadReq)
    return await objects.initiate(call.operator, request, call.api_url)


@route(Who.ANY)
async def auth_sign(call: Call) -> Answer:
    request = call.parse(third_pb2.AuthSignReq)
    parts = await objects.auth_sign(call.operator, request.uploadID, list(request.partNumbers), call.api_url)
    return third_pb2.AuthSignResp(parts=parts)


@route(Who.ANY)
async def complete_multipart_upload(call: Call) -> Answer:
    request = call.parse(third_pb2.CompleteMultipartUploadReq)
    return third_pb2.CompleteMultipartUploadResp(url=await objects.complete(call.operator, request, call.api_url))


@route(Who.ANY)
async def access_url(call: Call) -> Answer:
    """Files are given as they are: what ``query`` says of an image's size is not looked at."""
    request = call.parse(third_pb2.AccessURLReq)
    if request.query.get("type", "") not in ("", "image"):
        raise ArgsError("type of the query must be image or left out")
    url, expire_time = await objects.access_url(request.name, call.api_url)
    return third_pb2.AccessURLResp(url=url, expireTime=expire_time)


@route(Who.ANY)
async def initiate_form_data(call: Call) -> Answer:
    request = call.parse(third_pb2.InitiateFormDataReq)
    return await objects.initiate_form(call.operator, request, call.api_url)


@route(Who.ANY)
async def complete_form_data(call: Call) -> Answer:
    request = call.parse(third_pb2.CompleteFormDataReq)
    return third_pb2.CompleteFormDataResp(url=await objects.complete_form(call.operator, request.id, call.api_url))


@csrf_exempt
async def read(request: HttpRequest, name: str) -> HttpResponse:
    """GET without a token, for that is what stands in messages: leads to the file for a while."""
    if request.method == "OPTIONS":
        return HttpResponse(status=200, headers=CORS_HEADERS)
    if request.method not in ("GET", "HEAD"):
        return unknown_route(request)
    try:
        url, _ = await objects.access_url(name, get_api_url(request))
    except RecordNotFound:
        return HttpResponse("there is no such file", status=404, content_type="text/plain", headers=CORS_HEADERS)
    except Exception as error:
        known = as_im_error(error)
        level = logging.ERROR if isinstance(known, InternalError) else logging.WARNING
        logger.log(level, "file cannot be read", extra={"action": "rest", "code": known.code}, exc_info=error)
        return HttpResponse(known.name, status=503, content_type="text/plain", headers=CORS_HEADERS)
    return HttpResponse(status=302, headers={**CORS_HEADERS, "Location": url, "Cache-Control": "no-store"})
