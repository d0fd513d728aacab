"""`python -m roadmap`, and where the command `roadmap` begins."""

import sys


def main() -> int:
    """Runs the command; returns its exit status. Ctrl-C during its imports ends it without a traceback too."""
    try:
        from roadmap.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130  # as roadmap.text.INTERRUPTED, which may not be imported yet


if __name__ == "__main__":
    sys.exit(main())
