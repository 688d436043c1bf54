"""The command, whose light verbs do not wait for torch."""

import sys

from distill_lightning.errors import InputError


def main() -> int:
    if sys.argv[1:2] == ["report"]:
        from distill_lightning import report

        try:
            return report.main(sys.argv[2:])
        except InputError as error:
            print(f"distill: {error}", file=sys.stderr)
            return 2
    from distill_lightning.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
