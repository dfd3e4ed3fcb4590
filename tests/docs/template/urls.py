"""A page for the guides that show a template: chat/room.html, for each room."""

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

urlpatterns = [
    path("favicon.ico", lambda request: HttpResponse(status=204)),
    path(
        "show/<str:room>/",
        lambda request, room: render(request, "chat/room.html", {"room": room}),
    ),
]
