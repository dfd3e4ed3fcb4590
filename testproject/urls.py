"""HTTP: the demo's pages and its API, and Django's admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("testproject.rooms.urls")),
]
