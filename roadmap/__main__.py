"""The entry point of `python -m roadmap` and of the command `roadmap`."""

import sys

from roadmap import own_packages

if __name__ == "__main__" and __spec__ is not None:  # python -m roadmap
    own_packages.leave_working_directory()


def main() -> int:
    """Runs the command and returns its exit status. Ctrl-C during imports ends it without a traceback."""
    try:
        from roadmap.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130  # INTERRUPTED in roadmap.cli.options, which may not be imported yet


if __name__ == "__main__":
    sys.exit(main())
