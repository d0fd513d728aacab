"""What a fork server imports first, for its effect: it ignores the signals that are for its launcher.

It was started with them held back, since between its start and here any of them would have ended it.
"""

import signal

from runner.launch.signals import FOR_THE_LAUNCHER

for number in FOR_THE_LAUNCHER:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_LAUNCHER)
