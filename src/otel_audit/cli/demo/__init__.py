"""The demonstration: real processes are killed, a real receiver fails, and every record is accounted for.

What was emitted is known from outside the library: each process notes the id of a record, with one ``write(2)`` to a
file of its own, after the call that emitted it has returned.  So the notes survive SIGKILL, and whatever stands in them
and is neither delivered, dead-lettered nor pending is lost.

Files: ``command`` (the command), ``scenario`` (what happens), ``billing`` (a process that emits), ``application`` (them
all, from outside), ``receiver`` (the embedded one), ``receivers`` and ``collector`` (who is delivered to, from
outside), ``count`` (the accounts), ``agreed`` (what the processes have agreed on).
"""
