"""The admin's page of processes."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe

from .. import listing
from ..models import Process
from . import chart
from .pages import Context, StoreAdmin, choose_layer, finish


@admin.register(Process)
class ProcessAdmin(StoreAdmin):
    """The processes, and how many members there were in the last minutes."""

    def get_urls(self) -> list[Any]:
        return self.urls_of(("", self.changelist_view, "changelist"))

    @method_decorator(require_safe)
    def changelist_view(
        self, request: HttpRequest, extra_context: Context | None = None
    ) -> HttpResponse:
        """List the processes, with their leases."""
        self.require(request)
        alias, manager, context = choose_layer(request)
        lease = manager.settings.lease

        def read() -> Context:
            members = finish(manager.amembership_count())
            groups = finish(manager.agroup_count())
            processes = finish(listing.list_processes(manager.store))
            return {
                "rows": [(one, max(0, lease - one.remaining)) for one in processes],
                "members": members,
                "groups": groups,
                "chart": chart.draw(chart.add_sample(alias, members)),
            }

        context |= {"title": "Processes", "lease": lease, **(extra_context or {})}
        return self.show_live(request, "processes", read, **context)
