"""``asyncio.timeout()``, also where Python has none."""

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # redis-py needs it there.

__all__ = ["timeout"]
