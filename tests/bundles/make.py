"""Make the bundles that the tests of the runtime read, where they are not cached yet.

    python -m tests.bundles.make

Takes an environment with torch. Afterwards `pytest tests/runtime` needs none. Prints each folder.
"""

from __future__ import annotations

from tests.bundles.tiny import speller, tiny_bundle, tiny_model, tuned_bundle, wide_bundle

INT8 = ()


def main() -> None:
    """Make all."""
    from tests.export.tiny_models import TINY

    for name in TINY:
        print(tiny_model(name))


if __name__ == "__main__":
    main()
