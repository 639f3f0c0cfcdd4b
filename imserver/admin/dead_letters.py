"""Dead letters: listed from Redis without their content; put back into their log or dropped, after a question."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from imserver.admin.users import shown_time
from imserver.conf import get_config
from imserver.models import DeadLetter
from imserver.storage import dead_letters, webhook_waits
from imserver.storage.clients import get_redis
from imserver.storage.dead_letters import Listed, Place
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

PER_PAGE = 100
SELECTED = "selected"


@dataclass(frozen=True, slots=True)
class Action:
    """What an operator may do with dead letters."""

    name: str
    label: str
    question: str
    done: str
    #: Of Django's: what one needs for it.
    permission: str


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "put_back", "Put back into their logs", "Put these back into the logs they came from?", "Put back", "change"
        ),
        Action("drop", "Drop for good", "Drop these for good? They cannot be brought back.", "Dropped", "delete"),
    )
}


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Looks like a change list, but the entries are in Redis streams and not in a table."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="imserver_deadletter_changelist"),
            # "Recent actions" links here.
            path("<path:place>/change/", view(self.to_list), name="imserver_deadletter_change"),
        ]

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def to_list(self, _request: HttpRequest, place: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:imserver_deadletter_changelist"))

    def allowed(self, request: HttpRequest) -> dict[str, Action]:
        may = {"change": self.has_change_permission(request), "delete": self.has_delete_permission(request)}
        return {name: action for name, action in ACTIONS.items() if may[action.permission]}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """GET lists; POST with an action asks; POST with an action and the answer acts."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        before = _places([request.GET.get("before", "")])
        client = get_redis()
        letters = dead_letters.newest(client, PER_PAGE + 1, before[0] if before else None)
        context = self._context(
            request,
            letters[:PER_PAGE],
            actions=self.allowed(request).values(),
            count=dead_letters.count(client),
            waiting=webhook_waits.count_lines(client, get_config().shards),
            older=letters[PER_PAGE - 1].place if len(letters) > PER_PAGE else None,
            is_first_page=not before,
        )
        return TemplateResponse(request, "admin/imserver/deadletter/list.html", {**context, **(extra_context or {})})

    def _act(self, request: HttpRequest) -> HttpResponse:
        here = HttpResponseRedirect(request.get_full_path())
        name = request.POST.get("action", "")
        if name not in ACTIONS:
            messages.warning(request, "Choose an action.")
            return here
        action = self.allowed(request).get(name)
        if action is None:
            raise PermissionDenied
        client = get_redis()
        # Oldest first: what is put back comes in the order it was in.
        found = [dead_letters.find(client, place) for place in sorted(_places(request.POST.getlist(SELECTED)))]
        letters = [letter for letter in found if letter is not None]
        if not letters:
            messages.warning(request, "Choose dead letters; those that were chosen may be gone.")
            return here
        if request.POST.get("answer") == "yes":
            self._perform(request, action, letters)
            return HttpResponseRedirect(reverse("admin:imserver_deadletter_changelist"))
        context = self._context(request, letters, action=action, selected=SELECTED)
        return TemplateResponse(request, "admin/imserver/deadletter/confirm.html", context)

    def _perform(self, request: HttpRequest, action: Action, letters: list[Listed]) -> None:
        done, to_wake = 0, set()
        for letter in letters:
            if action.name == "drop":
                is_done = dead_letters.drop(get_redis(), letter)
            else:
                result = dead_letters.put_back(get_redis(), letter)
                is_done = result.done
                if result.stage_to_wake:
                    to_wake.add((result.stage_to_wake, letter.place.shard))
            if is_done:
                done += 1
                self._log(request, action, letter)
        for stage, shard in to_wake:
            wake(stage, shard)
        if done:
            messages.success(request, f"{action.done}: {done}.")
        if done < len(letters):
            messages.warning(request, f"{len(letters) - done} could not be: gone meanwhile, or from an unknown log.")

    def _log(self, request: HttpRequest, action: Action, letter: Listed) -> None:
        entry = DeadLetter(entry=str(letter.place))
        self.log_change(request, entry, f"{action.done}: {letter.origin} {letter.conversation}, {letter.reason}")
        logger.info(
            "dead letter handled",
            extra={
                "action": f"dead_letter_{action.name}",
                "entry": entry.entry,
                "origin": letter.origin,
                "conversation": letter.conversation,
                "admin_user": request.user.get_username(),
            },
        )

    def _context(self, request: HttpRequest, letters: list[Listed], **more: Any) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": "Dead letters",
            "opts": self.model._meta,
            "rows": [{"letter": item, "time": shown_time(item.place.milliseconds)} for item in letters],
            **more,
        }


def _places(texts: list[str]) -> list[Place]:
    """Those of the texts that are places; what a hand wrote into an address is passed over."""
    places = []
    for text in texts[:PER_PAGE]:
        try:
            places.append(Place.parse(text))
        except ValueError:
            continue
    return places
