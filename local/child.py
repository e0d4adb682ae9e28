"""Becomes another program that dies when the process that started it dies, however that happens.

    python child.py PARENT_PID DEATH_SIGNAL USER COMMAND...      USER: "uid:gid", or "-" to stay who we are

An `exec` shim rather than a `preexec_fn`: Python code between fork and exec may deadlock in a threaded parent.
The kernel forgets the wish when the user changes, so the user comes first.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, user, *command = sys.argv[1:]
    if user != "-":
        user_id, group_id = (int(number) for number in user.split(":"))
        os.setgroups([])
        os.setgid(group_id)
        os.setuid(user_id)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the kernel knew of our wish
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        sys.exit(f"{command[0]}: {problem.strerror}")


if __name__ == "__main__":
    main()
