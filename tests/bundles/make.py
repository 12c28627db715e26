"""Make the bundles that the tests of the runtime read, where they are not cached yet.

    python -m tests.bundles.make

Takes an environment with torch. Afterwards `pytest tests/runtime` needs none. Prints each folder.
"""

from __future__ import annotations

from tests.bundles.tiny import (
    speller,
    tiny_bundle,
    tiny_model,
    tuned_bundle,
    two_sided_bundle,
    wide_bundle,
)

INT8 = ("llama", "mistral", "qwen2", "gpt2", "opt", "gemma3_text", "roberta", "bert")


def main() -> None:
    """Make all."""
    from tests.export.tiny_models import TINY

    for name in TINY:
        print(tiny_model(name), tiny_bundle(name, "fp32"), flush=True)
    for name in INT8:
        print(tiny_bundle(name, "int8"), flush=True)
    print(tiny_bundle("llama", "fp32", (1, 1.0)))
    print(tuned_bundle("int8"), tuned_bundle("fp32"), speller(), wide_bundle())
    print(two_sided_bundle())


if __name__ == "__main__":
    main()
