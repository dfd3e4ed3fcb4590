"""What Sphinx builds the documentation with: ``tox -e docs``."""

import inspect
import sys

import django
from django.conf import settings

import channels_groups

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "channels",
        "channels_groups",
        "channels_groups.database",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "none"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    USE_TZ=True,
)
django.setup()

project = "channels_groups"
author = copyright = "channels_groups contributors"
version = release = channels_groups.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"channels_groups {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "tango"
pygments_dark_style = "github-dark"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

# Nothing is fetched from elsewhere: of names, only our own have to be found.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!channels_groups\.).*")]


#: Users are given these, or Django is, and do not make them.
HANDED_OUT = {
    "channels_groups.admin.GroupAdmin",
    "channels_groups.admin.ProcessAdmin",
    "channels_groups.models.Process",
    "channels_groups.database.store.DatabaseStore",
    "channels_groups.counts.CountsConsumer",
    "channels_groups.groups.ConnectionGroup",
    "channels_groups.groups.Connection",
}


def setup(app):
    """Connect what follows to what autodoc does."""
    app.connect("autodoc-skip-member", keep_sync_twins)
    app.connect("autodoc-process-docstring", refer_to_async_twin)
    app.connect("autodoc-process-signature", hide_maker)


def hide_maker(app, what, name, member, options, signature, returns):
    """Show no arguments of classes that users do not make."""
    return ("", None) if name in HANDED_OUT else None


def keep_sync_twins(app, what, name, member, skip, options):
    """Do not skip a method for its docstring if its async twin has one."""
    return False if skip and find_async_twin(member) else None


def refer_to_async_twin(app, what, name, member, options, lines):
    """Write the docstring of a sync method that has none of its own."""
    twin = find_async_twin(member)
    if twin and not member.__doc__:
        lines[:] = [f"Do as :meth:`{twin}` does, from sync code."]


def find_async_twin(member):
    """Return the name of a method's async twin, or None."""
    if not inspect.isfunction(member):
        return None
    owner, _, name = member.__qualname__.rpartition(".")
    owner = getattr(sys.modules[member.__module__], owner, None)
    twin = f"__a{name[2:]}" if name.startswith("__") else f"a{name}"
    return twin if hasattr(owner, twin) else None
