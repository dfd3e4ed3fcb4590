"""The demo's settings: a Django project with nothing beside the rooms.

Environment: CHANNEL_LAYER (memory, core or pubsub), REDIS_URL, CHANNEL_PREFIX;
GROUP_LEASE and the like for the keys of CHANNELS_GROUPS; GROUP_EVENT_LOG, a
file for the signals; DEMO_PROCESS_NAME, what members see of this process;
DATABASE, a file for SQLite;
DJANGO_DEBUG=0 and DJANGO_ALLOWED_HOSTS (separated by commas).
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "a demo's key, which keeps nothing secret"
DEBUG = os.environ.get("DJANGO_DEBUG", "1") != "0"
ALLOWED_HOSTS = os.environ.get(
    "DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"
).split(",")

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "channels_groups",
    "channels_groups.database",
    "testproject.rooms",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "testproject.urls"
ASGI_APPLICATION = "testproject.asgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE_DIR / "testproject" / "db.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
TIME_ZONE = "UTC"
USE_TZ = True
TEST_RUNNER = "testproject.runner.PytestTestRunner"

# Channels and the groups.

CHANNEL_LAYER = os.environ.get("CHANNEL_LAYER", "memory")
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
# redis-py 8 would end a blocking read after five seconds, and with it the consumer.
HOSTS = [{"address": REDIS_URL, "socket_timeout": None}]
PREFIX = os.environ.get("CHANNEL_PREFIX", "demo")
CHANNEL_LAYERS = {
    "default": {
        "memory": {
            "BACKEND": "channels.layers.InMemoryChannelLayer",
            "CONFIG": {"capacity": 1000},
        },
        "core": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": HOSTS, "prefix": PREFIX, "capacity": 1000},
        },
        "pubsub": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": HOSTS, "prefix": PREFIX},
        },
    }[CHANNEL_LAYER]
}

CHANNELS_GROUPS = {"default": {"MANAGER": "testproject.rooms.manager.RoomManager"}}
for key, read in {
    "STORE": str,
    "LEASE": float,
    "CHANGE_INTERVAL": float,
    "MAX_MEMBERS": int,
    "OUTBOX": int,
    "PLAIN_GROUP_SEND": lambda value: value != "0",
    "GRACE": float,
}.items():
    if f"GROUP_{key}" in os.environ:
        CHANNELS_GROUPS["default"][key] = read(os.environ[f"GROUP_{key}"])

GROUP_EVENT_LOG = os.environ.get("GROUP_EVENT_LOG")
DEMO_PROCESS_NAME = os.environ.get("DEMO_PROCESS_NAME") or str(os.getpid())
