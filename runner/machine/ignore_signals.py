"""Imported first by a fork server, for its side effect: the server ignores the signals that are for its launcher.

The server starts with these signals blocked, because any of them would end it before this module is imported.
"""

import signal

from runner.machine.signals import FOR_THE_LAUNCHER

for number in FOR_THE_LAUNCHER:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_LAUNCHER)
