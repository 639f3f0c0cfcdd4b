"""This process as a gateway node: its name, its heartbeat, the dispatcher that writes pushes, and draining.

The channel layer is at most once. A push that is lost is found by the client's next pull, so nothing here retries. A client
that notices nothing does not pull: when the node may have missed pushes, everybody is told where its conversations end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import redis
from channels.layers import get_channel_layer

from gateway import close
from gateway.codecs.base import Response
from gateway.connections import FRAMES_PER_TURN, Connection, ConnectionTable
from gateway.subscriptions import StatusSubscriptions
from gateway.tails import Tails
from imserver import metrics
from imserver.actions import presence
from imserver.actions.presence import KICK_EVENT
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import PushResult, ReqIdentifier
from imserver.protocol.push_event import PUSH_EVENT, unpack
from imserver.storage.clients import close_async_clients, get_async_redis
from imserver.storage.route_finder import is_written_to
from imserver.storage.routes import CHANGES_A_TRIP, Route, Routes, token_digest
from imserver.webhooks.client import close_client
from tasks.names import RESULTS_EVENT

logger = logging.getLogger(__name__)

#: Time for what is queued to be written when the node goes away.
LAST_WRITES_SECONDS = 2
#: Heartbeats without an event of our own coming back over the channel layer, until it is taken for dead.
SILENT_BEATS = 3
#: Until a new node's subscription is there, its calls to itself are lost. It calls so often, and so many times a heartbeat.
FIRST_CALL_SECONDS = 0.05
FIRST_CALLS = 20
#: A channel layer that hangs is left alone after this long.
RESET_SECONDS = 5
#: The node's message to itself.
BEAT_EVENT = "node.beat"
#: Every connection is compared with the routing table once in so many heartbeats (a minute) …
BEATS_A_ROUND = 30
#: … and so many at a heartbeat when the table was lost: the next heartbeat must not come too late.
RESTORED_A_BEAT = 5000
#: Connections that are registered and removed at the same time.
CHANGES_AT_ONCE = 32


class Node:
    def __init__(self) -> None:
        config = get_config()
        # A new name each start: routes of an earlier life die with its heartbeat.
        self.name = f"{config.key_prefix}gateway.{socket.gethostname()[:32]}.{os.getpid()}.{secrets.token_hex(3)}"
        self.connections = ConnectionTable()
        #: Set while pushes come through.
        self._hears = asyncio.Event()
        self.is_draining = False
        self._heartbeat_seconds = config.node_heartbeat_ms / 1000
        self._drain_seconds = config.drain_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatcher: asyncio.Task[None] | None = None
        self._unheard_beats = 0
        #: No push that left before this was missed; 0 until the node hears for the first time.
        self._sure_ms = 0
        #: How often Redis did not know the node.
        self._times_unknown = 0
        #: That and how often a subscription to the node's channel began, when the node heard last.
        self._breaks = (0, 0)
        self.subscriptions = StatusSubscriptions()
        self.tails = Tails(self.connections)
        # Thousands come and go together when a node dies; they need not have a Redis connection each.
        self._places = asyncio.Semaphore(CHANGES_AT_ONCE)
        #: Ids of connections whose registration is on its way.
        self._joining: set[str] = set()
        #: Connection id -> user id of routes that are still to be removed.
        self._unremoved: dict[str, str] = {}
        #: Connections that this round of comparing has not come to.
        self._unverified: list[Connection] = []
        self._is_restoring = False

    async def start(self) -> None:
        """Listen on the channel layer and begin the heartbeat. Runs once."""
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._dispatcher = loop.create_task(self._dispatch())
        self._tasks = [loop.create_task(self._beat())]

    @property
    def is_running(self) -> bool:
        """Pushes come through, as far as is known."""
        return self._hears.is_set()

    async def until_running(self) -> None:
        """Wait some seconds for that: of what is said between a client's sync and the next push, it would miss the end."""
        if not self.is_running:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hears.wait(), RESET_SECONDS)

    async def drain(self) -> None:
        """Tell every client to reconnect, spread over DRAIN_SECONDS; then leave the routing table."""
        self.is_draining = True
        connections = self.connections.all()
        pause = self._drain_seconds / len(connections) if connections else 0
        logger.info("draining", extra={"action": "drain_node", "connections": len(connections)})
        for connection in connections:
            connection.close(close.RESTART)
            await asyncio.sleep(pause)
        if connections:
            # A client that does not read holds up its own writer, and must not hold up the process.
            writers = [asyncio.ensure_future(connection.drained()) for connection in connections]
            _, slow = await asyncio.wait(writers, timeout=self._drain_seconds + LAST_WRITES_SECONDS)
            for writer in slow:
                writer.cancel()
        tasks = [*self._tasks, *([self._dispatcher] if self._dispatcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks or [asyncio.ensure_future(asyncio.sleep(0))], timeout=LAST_WRITES_SECONDS)
        await self.subscriptions.close()
        await self.tails.close()
        try:
            await presence.leave([(item.user_id, item.id) for item in self.connections.all()], self.name)
            await Routes(get_async_redis()).leave(self.name)
        except redis.RedisError as error:
            logger.warning(
                "node not removed; its heartbeat expires", extra={"action": "drain_node", "error": repr(error)}
            )
        await close_client()
        await close_async_clients()
        self._hears.clear()

    async def join(self, connection: Connection, operation_id: str) -> int:
        """Register an accepted connection and apply the multi-login policy; returns how many others had to go."""
        self.connections.add(connection)
        self._joining.add(connection.id)
        # What is on its way to Redis may arrive after all; who is cut off meanwhile must be removed after that.
        return await asyncio.shield(self._register(connection, operation_id))

    async def _register(self, connection: Connection, operation_id: str) -> int:
        try:
            async with self._places:
                change = await presence.join(
                    connection.user_id, self._route_of(connection), connection.token, operation_id
                )
        finally:
            self._joining.discard(connection.id)
        if self.connections.get(connection.id) is None:
            await self._remove_route(connection)
        elif change.is_refused:
            self.kick([connection.id])
        return len(change.kicked)

    async def leave(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self.subscriptions.drop(connection)
        await self._remove_route(connection)

    async def _remove_route(self, connection: Connection) -> None:
        try:
            async with self._places:
                await presence.leave([(connection.user_id, connection.id)], self.name)
        except Exception as error:
            # The heartbeat tries again.
            self._unremoved[connection.id] = connection.user_id
            logger.warning(
                "route not removed", extra={"action": "leave", "user_id": connection.user_id}, exc_info=error
            )

    async def set_background(self, connection: Connection, is_background: bool) -> None:
        """Write it where the push stage sees it. Raises redis.RedisError; then nothing was changed."""
        route = replace(self._route_of(connection), is_background=is_background)
        await presence.set_background(connection.user_id, route)
        connection.is_background = is_background

    def _route_of(self, connection: Connection) -> Route:
        return Route(
            connection_id=connection.id,
            node=self.name,
            platform_id=connection.platform_id,
            token_digest=token_digest(connection.token),
            since_ms=connection.since_ms,
            is_background=connection.is_background,
        )

    # -- heartbeat

    async def _beat(self) -> None:
        while True:
            try:
                routes, at_ms = Routes(get_async_redis()), now_ms()
                known = await routes.beat(self.name, len(self.connections), self.connections.user_count)
                if not known:
                    # Redis lost its data, or we were thought dead: our routes may be gone.
                    self._unverified, self._is_restoring = self.connections.all(), True
                    self._times_unknown += 1
                await self._verify()
                await self.subscriptions.tidy()
                # As long as routes are missing, pushes are.
                await self._call_itself(0 if self._is_restoring else at_ms)
                self._unheard_beats += 1
                if self._unheard_beats > SILENT_BEATS:
                    self._hears.clear()
                    await self._reset_layer()
            except (redis.RedisError, TimeoutError) as error:
                self._hears.clear()
                logger.warning("heartbeat failed", extra={"action": "heartbeat", "error": repr(error)})
            except Exception as error:
                # Whatever it is: a node without a heartbeat is taken for dead, and its clients would not know.
                self._hears.clear()
                logger.error("heartbeat failed", extra={"action": "heartbeat"}, exc_info=error)
            await asyncio.sleep(self._heartbeat_seconds)

    async def _call_itself(self, at_ms: int) -> None:
        """Say that this node's users were pushed to until then, if that is heard; 0 when they are not. Raises TimeoutError,
        redis.RedisError."""
        event = {"type": BEAT_EVENT, "at": at_ms, "times_unknown": self._times_unknown}
        for _ in range(FIRST_CALLS):
            await asyncio.wait_for(get_channel_layer().send(self.name, event), RESET_SECONDS)
            if self.is_running:
                return
            await asyncio.sleep(FIRST_CALL_SECONDS)

    async def _verify(self) -> None:
        """Compare our connections with the routing table, some at each heartbeat: put back what is missing, close who was
        kicked without our hearing of it, remove who left while Redis was away."""
        await self._remove_left()
        if not self._unverified:
            self._unverified = self.connections.all()
        count = RESTORED_A_BEAT if self._is_restoring else -(-len(self.connections) // BEATS_A_ROUND)
        while count > 0 and self._unverified:
            some = self._unverified[-min(count, CHANGES_A_TRIP) :]
            here = [item for item in some if self.connections.get(item.id) is item and item.id not in self._joining]
            try:
                changes = await presence.restore(
                    [(item.user_id, self._route_of(item), item.token) for item in here],
                    self.name,
                    was_unknown=self._is_restoring,
                )
            finally:
                # Who left meanwhile may have removed its route before we put it back; also when the answer did not come.
                left = [item for item in here if self.connections.get(item.id) is None]
                self._unremoved.update((item.id, item.user_id) for item in left)
            self.kick([item.id for item, change in zip(here, changes, strict=True) if change.is_refused])
            del self._unverified[-len(some) :]
            count -= len(some)
        await self._remove_left()
        self._is_restoring = self._is_restoring and bool(self._unverified)

    async def _remove_left(self) -> None:
        left = dict(self._unremoved)
        if left:
            await presence.leave([(user_id, connection_id) for connection_id, user_id in left.items()], self.name)
            for connection_id in left:
                self._unremoved.pop(connection_id, None)

    async def _reset_layer(self) -> None:
        """Nothing comes through: subscribe anew. The layer thinks it is subscribed when its first attempt failed, and does
        not notice a connection that died without a word."""
        logger.error("channel layer is silent, subscribing anew", extra={"action": "reset_layer"})
        if self._dispatcher is not None:
            self._dispatcher.cancel()
            await asyncio.wait([self._dispatcher], timeout=RESET_SECONDS)
        await asyncio.wait_for(get_channel_layer().flush(), RESET_SECONDS)
        self._unheard_beats = 0
        self._dispatcher = asyncio.get_running_loop().create_task(self._dispatch())

    # -- dispatcher

    async def _dispatch(self) -> None:
        layer = get_channel_layer()
        while True:
            try:
                event = await layer.receive(self.name)
                await self._handle(event)
            except Exception as error:
                logger.error("event not dispatched", extra={"action": "dispatch"}, exc_info=error)
                await asyncio.sleep(0.1)

    async def _handle(self, event: dict[str, Any]) -> None:
        if event["type"] == PUSH_EVENT:
            await self._push_all(event)
        elif event["type"] == BEAT_EVENT:
            # Not before: until its own event comes back, a node may be deaf to pushes.
            self._unheard_beats = 0
            self._hears.set()
            self._make_up_for_missed(event["at"], event["times_unknown"])
        elif event["type"] == KICK_EVENT:
            self.kick(event["connections"])
        else:
            logger.error("unknown event", extra={"action": "dispatch", "type": event["type"]})

    def _make_up_for_missed(self, at_ms: int, times_unknown: int) -> None:
        """The node heard itself: what was said before may have been missed if the subscription broke, which the driver
        mends by itself and in a moment, or if the node was not known."""
        if not at_ms or times_unknown != self._times_unknown:
            return
        breaks = (times_unknown, get_channel_layer().times_subscribed(self.name))
        if breaks != self._breaks and self._sure_ms:
            logger.warning(
                "pushes may have been missed",
                extra={"action": "make_up", "since_ms": self._sure_ms, "connections": len(self.connections)},
            )
            self.tails.make_up(self._sure_ms)
        self._sure_ms, self._breaks = at_ms, breaks

    async def _push_all(self, event: dict[str, Any]) -> None:
        """Write a batch, and tell who sent it what came of it when that was asked for."""
        results: dict[tuple[str, int], PushResult] = {}
        for number, (operation_id, payload, user_ids) in enumerate(unpack(event), start=1):
            self.push(operation_id, payload, user_ids, results)
            if number % FRAMES_PER_TURN == 0:
                # Let the writers run: a queue that is full only because nobody could empty it is no slow reader.
                await asyncio.sleep(0)
        if "reply" in event:
            answer = {
                "type": RESULTS_EVENT,
                "id": event["id"],
                "part": event["part"],
                "node": self.name,
                "results": [[user_id, platform_id, int(code)] for (user_id, platform_id), code in results.items()],
            }
            await get_channel_layer().send(event["reply"], answer)

    def push(
        self, operation_id: str, payload: bytes, user_ids: list[str], results: dict[tuple[str, int], PushResult]
    ) -> None:
        """Write one PushMessages to the users' connections; encoded once for each encoding.

        Args:
            results: gets the worst of each user and platform over the messages of a batch: who missed one was not reached.
                Of several connections of a platform, one that took the message is enough.
        """
        frames: dict[tuple[str, bool], bytes] = {}
        best: dict[tuple[str, int], PushResult] = {}
        for connection in self.connections.of_users(user_ids):
            at = (connection.user_id, connection.platform_id)
            if not is_written_to(connection.platform_id, is_background=connection.is_background):
                best.setdefault(at, PushResult.IOS_BACKGROUND)
                continue
            frame = frames.get(connection.encoding)
            if frame is None:
                response = Response(ReqIdentifier.PUSH_MSG, operation_id=operation_id, data=payload)
                frame = frames[connection.encoding] = connection.encode(response)
                metrics.FRAMES_ENCODED.inc()
            connection.push(operation_id, frame)
            if not connection.is_closing:
                best[at] = PushResult.OK
            else:
                best.setdefault(at, PushResult.FAILED)
        for at, result in best.items():
            if results.get(at, PushResult.OK) == PushResult.OK:
                results[at] = result

    def kick(self, connection_ids: list[str]) -> None:
        """2002, then close."""
        for connection_id in connection_ids:
            connection = self.connections.get(connection_id)
            if connection is not None:
                connection.push_now(connection.encode(Response(ReqIdentifier.KICK_ONLINE)))
                connection.close(close.KICKED)


@cache
def get_node() -> Node:
    """The process's node."""
    return Node()
