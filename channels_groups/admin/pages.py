"""Pages of Django's admin that are read from a membership store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Awaitable, Callable, TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse

from ..exceptions import StoreUnavailable
from ..manager import GroupManager, get_group_manager

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

Context = dict[str, Any]
T = TypeVar("T")


class StoreAdmin(ModelAdmin):
    """Pages that are read from a store, and again while they are looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def require(self, request: HttpRequest, permission: str = "") -> None:
        """Raise PermissionDenied unless the user may view, and do this."""
        may = self.has_view_permission(request)
        if not may or (permission and not self.may(request, permission)):
            raise PermissionDenied

    def may(self, request: HttpRequest, permission: str) -> bool:
        user: Any = request.user
        return bool(user.has_perm(f"{self.opts.app_label}.{permission}"))

    def show_live(
        self, request: HttpRequest, name: str, read: Callable[[], Context], **rest: Any
    ) -> HttpResponse:
        """Show a page of what ``read()`` returns, or say why there is none.

        With ``_live`` in the query it is only the part that changes.
        """
        part, status = f"admin/channels_groups/live/{name}.html", 200
        context = {"part": part, **rest}
        try:
            context |= read()
        except (StoreUnavailable, ImproperlyConfigured) as error:
            context["unavailable"], status = str(error), 503
        page = f"admin/channels_groups/{name}.html"
        template = part if "_live" in request.GET else page
        return self.show(request, template, context, status)

    def show(
        self, request: HttpRequest, template: str, context: Context, status: int = 200
    ) -> HttpResponse:
        """Render a template of the admin."""
        request.current_app = self.admin_site.name
        context = {**self.admin_site.each_context(request), "opts": self.opts} | context
        return TemplateResponse(request, template, context, status=status)

    def link(self, name: str, *args: str) -> str:
        """Return the address of a page of this model."""
        where = f"{self.admin_site.name}:{self._prefix}_{name}"
        return reverse(where, args=[quote(arg) for arg in args])

    def urls_of(self, *views: tuple[str, Any, str]) -> list[Any]:
        """Return URL patterns of (route, view, name)."""
        wrap = self.admin_site.admin_view
        return [
            path(route, wrap(view), name=f"{self._prefix}_{name}")
            for route, view, name in views
        ]

    @property
    def _prefix(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"


def choose_layer(request: HttpRequest) -> tuple[str, GroupManager, Context]:
    """Return the layer that the query names, or the first, and its manager."""
    layers = list(getattr(settings, "CHANNEL_LAYERS", {})) or ["default"]
    alias = request.GET.get("layer", layers[0])
    if alias not in layers:
        raise Http404("There is no such channel layer.")
    return alias, get_group_manager(alias), {"layers": layers, "layer": alias}


def finish(call: Awaitable[T]) -> T:
    """Await to the end in a sync view.

    A client that goes away cancels its request, and what the view awaits: an action
    would be neither undone nor logged, and asyncio would complain of each page.
    What is awaited has to end by itself, as all calls of stores and layers do.
    """
    return async_to_sync(_finish)(call)


async def _finish(call: Awaitable[T]) -> T:
    task = asyncio.ensure_future(call)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    return task.result()
