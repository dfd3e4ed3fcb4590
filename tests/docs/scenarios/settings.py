from dataclasses import asdict

from django.conf import settings

from channels_groups.conf import GroupSettings


def test_these_are_the_defaults():
    defaults = asdict(GroupSettings())
    shown = settings.CHANNELS_GROUPS["default"]
    assert {key.upper(): value for key, value in defaults.items()} == shown
