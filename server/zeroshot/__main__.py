"""The `zeroshot` command's way in, also of `python -m zeroshot`."""

from zeroshot.interrupt import ctrl_c_ends_at_once


def main() -> None:
    with ctrl_c_ends_at_once():
        from zeroshot.cli import main as run
    run()


if __name__ == "__main__":
    main()
