"""What happens to groups, told once in the whole cluster.

Each signal fires in one process only: the one whose commit made the change, or
the survivor that evicted a dead process. Its sender is the class of the consumer's
manager; for a member that is lost or expired it is that of another consumer of the
layer, of the same group if the process has one.
Receivers may be sync or async, get the arguments named below and take
``**kwargs``. One that raises is logged and changes nothing; one that waits for
a join or leave of the same group, or of one whose receivers wait for this one, gets a
RuntimeError.
"""

from django.dispatch import Signal

#: Arguments ``group``, ``revision``.
#: The group got its first member. Comes before that member's join.
group_created = Signal()

#: Arguments ``group``, ``connection``, ``count``, ``user_count``, ``revision``.
#: A connection became a member.
group_join = Signal()

#: Arguments ``group``, ``connection``, ``reason``, ``count``, ``user_count``,
#: ``revision``. A membership ended; ``reason`` is ``"left"`` (the connection left),
#: ``"disconnected"`` (it ended), ``"expired"`` (it ended, and its user was not back
#: within ``GRACE``) or ``"lost"`` (its process died).
group_leave = Signal()

#: Arguments ``group``, ``user_id``, ``count``, ``user_count``, ``revision``.
#: A user is in the group with a first connection. Comes after its join.
group_user_join = Signal()

#: Arguments ``group``, ``user_id``, ``count``, ``user_count``, ``revision``.
#: A user's last connection in the group is gone. Comes after its leave.
group_user_leave = Signal()

#: Arguments ``group``, ``connection``, ``count``, ``user_count``, ``revision``.
#: A member's info has changed, by ``update_info()``.
group_update = Signal()

#: Arguments ``group``, ``revision``.
#: The last member is gone. Comes after that member's leave.
group_destroyed = Signal()
