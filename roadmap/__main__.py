"""The entry point of `python -m roadmap` and of the command `roadmap`."""

import sys

from roadmap import own_packages

if __name__ == "__main__" and __spec__ is not None:  # python -m roadmap
    own_packages.leave_working_directory()


def main() -> int:
    """Runs the command and returns its exit status. Ctrl-C during imports ends it without a traceback."""
    try:
        from roadmap.cli import main as command

        _ignore_interrupts_at_exit()
        status = command()
    except KeyboardInterrupt:
        status = 130  # INTERRUPTED in roadmap.cli.options, which may not be imported yet
    # Python notes a KeyboardInterrupt within exec(TEXT), as in the creation of dataclasses, and ends by the raw signal
    # although it was handled. Each exec(TEXT) begins by clearing the note.
    exec("")
    return status


def _ignore_interrupts_at_exit() -> None:
    """When Python exits, it drops its handlers: Ctrl-C would then end a finished command by the raw signal."""
    import atexit
    import signal

    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the first to register, which is the last to run


if __name__ == "__main__":
    sys.exit(main())
