"""The two pages, and the API that tells what is in which room."""

import functools

from asgiref.sync import sync_to_async
from django.core.exceptions import BadRequest
from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group_manager

#: Rooms that are always worth a look, whether they are open or not.
FAVOURITES = ("Lounge", "Kitchen", "Library")

# The pages load nothing from elsewhere, and the browser holds them to it.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; object-src 'none'"


@require_safe
async def lobby(request):
    """Show the live rooms and the way into one."""
    return await page(request, "rooms/lobby.html", {"favourites": FAVOURITES})


@require_safe
async def room(request, name):
    """Show one room; whether it may be entered, its socket will tell."""
    context = {"name": name, "data": {"room": name}}
    return await page(request, "rooms/room.html", context)


@sync_to_async
def page(request, template, context):
    """Render a page, whose counts are read then, under the content security policy."""
    response = render(request, template, context)
    response["Content-Security-Policy"] = POLICY
    return response


def api(view):
    """Answer GET with what the view returns; 400 and 503 where it cannot."""

    @require_safe
    @never_cache
    @functools.wraps(view)
    async def answer(request, *args, **kwargs):
        try:
            return JsonResponse(await view(get_group_manager(), *args, **kwargs))
        except BadRequest as error:
            return failure("invalid", error, 400)
        except StoreUnavailable as error:
            return failure("unavailable", error, 503)

    return answer


@api
async def api_rooms(manager):
    """Give every live room: ``{rooms: [{name, count, users}]}``."""
    return {"rooms": await manager.list_rooms()}


@api
async def api_room(manager, name):
    """Give one room: ``{name, count, users, members: [{id, name, process}]}``."""
    try:
        group = manager.group(name)
    except (TypeError, ValueError) as error:
        raise BadRequest(str(error)) from error
    return {"name": name, **await manager.list_members(group)}


def failure(error, detail, status):
    """Return what the sockets call an error, as a response."""
    return JsonResponse({"error": error, "detail": str(detail)}, status=status)
