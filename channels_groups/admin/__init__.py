"""Groups and processes in Django's admin, without a table in the database.

``GroupAdmin`` and ``ProcessAdmin`` are registered with the default site; register
them with your own for the models of ``channels_groups.models``.
"""

from .groups import GroupAdmin
from .processes import ProcessAdmin

__all__ = ["GroupAdmin", "ProcessAdmin"]
