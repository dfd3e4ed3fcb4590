"""``{% load channels_groups %}{% group_count "room" %}``: a live count on any page."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.html import format_html
from django.utils.safestring import SafeString

from channels_groups.counts import PATH, make_token
from channels_groups.exceptions import StoreUnavailable
from channels_groups.groups import ConnectionGroup
from channels_groups.manager import get_group
from channels_groups.thread import ask

register = template.Library()

#: What stands there while the store does not answer.
UNKNOWN = "–"


@register.simple_tag(takes_context=True)
def group_count(
    context: template.Context, name: str, alias: str = "default"
) -> SafeString:
    """Show how many connections are in a group, as of now, and live from then on.

    The first one on a page brings the script along, which counts on
    ``channels_groups.routing.websocket_urlpatterns`` being served. Without it, and
    without JavaScript, the number stays. A dash stands there while the membership
    store does not answer. TypeError or ValueError for a name that no group can have.
    """
    group = get_group(name, alias)
    count = format_html(
        '<span class="group-count" data-group-count="{}" data-group-socket="{}">{}'
        "</span>",
        make_token(group),
        get_script_prefix() + PATH,
        _count(group),
    )
    # Its first layer is the page's; each included template has one of its own.
    page: Any = context.render_context.dicts[0]
    if page.get("group_count"):
        return count
    page["group_count"] = True
    source = static("channels_groups/counts.js")
    return format_html('{}<script type="module" src="{}"></script>', count, source)


def _count(group: ConnectionGroup) -> Any:
    try:
        return ask(group.count)
    except StoreUnavailable:
        return UNKNOWN
