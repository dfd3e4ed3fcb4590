"""The users behind user ids, as far as a viewer of the admin may see them."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.urls import reverse


class UserLink(NamedTuple):
    name: str
    url: str


def find_users(
    site: AdminSite, request: HttpRequest, ids: Iterable[str]
) -> dict[str, UserLink]:
    """Return a link for each id that is the primary key of a user, in one query.

    Empty where the user model is not in this admin, or not to be seen by the viewer.
    """
    model = get_user_model()
    if not site.is_registered(model):
        return {}
    user_admin = site.get_model_admin(model)
    if not user_admin.has_view_permission(request):
        return {}
    keys = {key: id for id in ids if (key := _read_key(model, id)) is not None}
    users = user_admin.get_queryset(request).in_bulk(keys) if keys else {}
    where = f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_change"
    return {
        keys[key]: UserLink(str(user), reverse(where, args=[quote(keys[key])]))
        for key, user in users.items()
        if user_admin.has_view_permission(request, user)
    }


def _read_key(model: Any, id: str) -> Any:
    """Return the key that is written so, or None: "007" is not user 7."""
    field = model._meta.pk
    while field.remote_field:
        field = field.target_field
    try:
        key = field.clean(id, None)
    except ValidationError:
        return None
    return key if str(key) == id and "\0" not in id else None
