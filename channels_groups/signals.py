"""What happens to groups, told once in the whole cluster.

Each signal fires in one process only: the one whose commit made the change, or
the survivor that evicted a dead process. Its sender is the manager's class.
Receivers may be sync or async, get the arguments named below and take
``**kwargs``. One that raises is logged and changes nothing; one that waits for
a join or leave of the same group gets a RuntimeError.
"""

from django.dispatch import Signal

#: group, revision: the group got its first member. Before that member's join.
group_created = Signal()

#: group, connection, count, user_count, revision: a connection became a member.
group_join = Signal()

#: group, connection, reason, count, user_count, revision: a membership ended;
#: reason is "left" (by itself), "disconnected" or "lost" (with its process).
group_leave = Signal()

#: group, revision: the last member is gone. After that member's leave.
group_destroyed = Signal()
