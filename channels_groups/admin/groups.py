"""The admin's pages of groups.

Each action needs the permission to view and one of its own, is asked about on a page
of its own, and is logged as a change of its group.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from channels.exceptions import ChannelFull
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.text import Truncator, capfirst
from django.views.decorators.http import require_http_methods, require_safe

from .. import listing
from ..exceptions import StoreUnavailable
from ..groups import ConnectionGroup
from ..manager import get_group_manager
from ..models import Group, visible
from ..stores.base import Member
from . import chart
from .forms import FORMS, ActionForm, Target
from .pages import Context, StoreAdmin, choose_layer, finish
from .users import find_users

#: Pages that one can go back, one by one, in a listing that leads forwards only.
KEPT = 20

#: A form, what it would do to whom, and its address.
Action = tuple[ActionForm, str, str]


@admin.register(Group)
class GroupAdmin(StoreAdmin):
    """Groups, the members of one, and what can be done to them."""

    def get_urls(self) -> list[Any]:
        one = "<str:object_id>/"
        return self.urls_of(
            ("", self.changelist_view, "changelist"),
            (f"{one}change/", self.change_view, "change"),
            (f"{one}history/", self.history_view, "history"),
            (f"{one}<str:action>/", self.action_view, "action"),
            (
                f"{one}connection/<str:id>/<str:action>/",
                self.action_view,
                "connection_action",
            ),
        )

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Group:
        """Return the group of that key, whether or not anybody is in it."""
        group = Group(key=object_id)
        _handle(group)
        return group

    @method_decorator(require_safe)
    def changelist_view(
        self, request: HttpRequest, extra_context: Context | None = None
    ) -> HttpResponse:
        """List the groups: ``q`` is a prefix, ``o`` the order, ``p`` the place."""
        self.require(request)
        alias, manager, context = choose_layer(request)
        prefix, order, place = (request.GET.get(name, "") for name in "qop")

        def read() -> Context:
            members = finish(manager.amembership_count())
            chart.add_sample(alias, members)
            page = finish(listing.list_groups(manager.store, prefix, order, place))
            groups = ((Group.of(alias, name), count) for name, count in page.groups)
            rows = [
                (group, self.link("change", group.key), count)
                for group, count in groups
            ]
            return {"page": page, "rows": rows, "members": members}

        context |= {"title": "Connection groups", "q": prefix, **(extra_context or {})}
        return self.show_live(request, "groups", read, **context)

    @method_decorator(require_safe)
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Context | None = None,
    ) -> HttpResponse:
        """Show one group with its members.

        ``p`` is the place in their listing, which leads forwards only; each ``back``
        is a place on the way there, the last of them the page before.
        """
        self.require(request)
        object = self.get_object(request, unquote(object_id))
        group, place = _handle(object), request.GET.get("p", "")
        trail = request.GET.getlist("back")[-KEPT:]

        def read() -> Context:
            store = group.manager.store
            try:
                page = finish(listing.list_members(store, group.name, place))
            except ValueError as error:
                raise Http404("There is no such place.") from error
            return {"page": page, "rows": self._rows(request, object, page.members)}

        actions = [
            (form(), form.does.format("all"), self.link("action", object.key, action))
            for action, form in FORMS.items()
            if self.may(request, form.group_permission)
        ]
        history = self.link("history", object.key)
        context = self._context(object, title=object, actions=actions, history=history)
        context |= {"place": place, "trail": trail, "trail_back": trail[:-1]}
        context |= {"trail_next": [*trail, place], **(extra_context or {})}
        return self.show_live(request, "group", read, **context)

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def action_view(
        self, request: HttpRequest, object_id: str, action: str, id: str = ""
    ) -> HttpResponse:
        """Ask before an action on a group or on a connection, then do it."""
        form_class = FORMS.get(action)
        if form_class is None:
            raise Http404("There is no such action.")
        permission = form_class.connection_permission if id else ""
        self.require(request, permission or form_class.group_permission)
        object = self.get_object(request, unquote(object_id))
        back = self.link("change", object.key)
        form = form_class(request.POST if request.method == "POST" else None)
        try:
            target, whom = finish(_find(_handle(object), unquote(id)))
            if target is None:
                messages.warning(request, f"{capfirst(whom)} is not there any more.")
            elif form.is_valid():
                self._act(request, object, form, target, whom)
            else:
                title = form.does.format(whom)
                context = self._context(object, title=title, form=form, back=back)
                context["crumbs"].append((back, object))
                return self.show(request, "admin/channels_groups/action.html", context)
        except (StoreUnavailable, ImproperlyConfigured, ChannelFull) as error:
            messages.error(request, f"It was not done: {error or 'too much waits.'}")
        return HttpResponseRedirect(back)

    # Below

    def _act(
        self,
        request: HttpRequest,
        object: Group,
        form: ActionForm,
        target: Target,
        whom: str,
    ) -> None:
        done = form.did.format(whom) + form.how()
        try:
            finish(form.act(target))
        except StoreUnavailable as error:
            # It was on its way: nobody, some or all may have got it.
            self.log_change(request, object, f"Perhaps: {done} ({error})")
            does = capfirst(form.does.format(whom))
            unknown = "It is not known whether this was done"
            unknown += (
                ", or for how many" if isinstance(target, ConnectionGroup) else ""
            )
            messages.error(request, f"{does}: {unknown}. {error}")
        else:
            self.log_change(request, object, done)
            messages.success(request, Truncator(done).chars(200))

    def _context(self, object: Group, **context: Any) -> Context:
        crumbs = [(self.link("changelist"), "Connection groups")]
        return {"object": object, "crumbs": crumbs, **context}

    def _rows(
        self, request: HttpRequest, group: Group, members: list[tuple[Member, str]]
    ) -> list[Context]:
        """Return what the page shows of members, and what may be done to each."""
        ids = {member.user_id for member, _ in members if member.user_id is not None}
        users = find_users(self.admin_site, request, ids)
        may = [
            (action, form())
            for action, form in FORMS.items()
            if self.may(request, form.connection_permission)
        ]

        def actions(id: str) -> list[Action]:
            return [
                (
                    form,
                    form.does.format(f"connection {id}"),
                    self.link("connection_action", group.key, id, action),
                )
                for action, form in may
            ]

        return [
            {
                "id": member.id,
                "user_id": None if member.user_id is None else visible(member.user_id),
                "user": users.get(member.user_id or ""),
                "info": json.dumps(member.info, ensure_ascii=False)[1:-1],
                "since": datetime.fromtimestamp(member.joined_at, timezone.utc),
                "process": process,
                "actions": actions(member.id),
            }
            for member, process in members
        ]


def _handle(group: Group) -> ConnectionGroup:
    """Return what can be asked and done, or raise Http404 for an impossible key."""
    if group.alias not in getattr(settings, "CHANNEL_LAYERS", {}):
        raise Http404("There is no such channel layer.")
    try:
        return get_group_manager(group.alias).group(group.name)
    except ValueError as error:
        raise Http404(str(error)) from error


async def _find(group: ConnectionGroup, id: str) -> tuple[Target | None, str]:
    """Return a member or the whole group, None if it is gone, and what to call it."""
    if not id:
        count = await group.acount()
        whom = f"all {count} connections" if count > 1 else "the one connection"
        return group if count else None, whom
    member = await group.aget(id)
    user = f" of {visible(member.user_id)}" if member and member.user_id else ""
    return member, f"connection {visible(id)}{user}"
