"""``python -m minilog`` is the ``minilog`` command."""

from minilog.cli.main import main

if __name__ == "__main__":
    main()
