"""Pairs of texts from a workshop: what a person says, and the entry of the manual that is meant.

The manual calls parts and faults by names of its own, which no model has read. Every part and every
fault is in training pairs; the pairs of the test are other combinations.
"""

from __future__ import annotations

PARTS = {
    "water pump": "grommel",
    "heating plate": "thermad",
    "door lock": "latchet K2",
    "display": "glim panel",
    "fan": "aerovane",
    "power cable": "feedline",
    "filter": "sievet",
    "drive belt": "torband",
    "motor": "rotar unit",
    "temperature sensor": "calprobe",
    "drain hose": "outlef",
    "control board": "logicard",
}
"""Part -> its name in the manual."""

FAULTS = {
    "is too loud": ("Resonance", "reseat it on its damper ring and torque to 4 Nm"),
    "does not start at all": ("Null response", "probe contact pair 3 and re-enable the relay"),
    "leaks": ("Ingress", "swap the O-seal and let the bond cure for an hour"),
    "gets too hot": ("Overtemp", "clear the vents and lower the duty cycle to 60 percent"),
    "smells burnt": ("Insulation char", "isolate the mains and replace the winding kit"),
    "stops after a minute": ("Early cutout", "reset the watchdog and raise the hold timer"),
    "shakes": ("Imbalance", "recentre the carrier and fit two counterweights"),
    "has come loose": ("Detachment", "apply thread glue and close clip B"),
}
"""Fault -> its name in the manual, and the remedy."""


def pairs() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Pairs to learn from, and pairs for the test: every third combination."""
    train: list[dict[str, str]] = []
    test: list[dict[str, str]] = []
    for row, (part, name) in enumerate(PARTS.items()):
        for column, (fault, (code, remedy)) in enumerate(FAULTS.items()):
            pair = {
                "query": f"The {part} of my machine {fault}, what can I do?",
                "passage": f"{code}, {name}: {remedy}.",
            }
            (test if (row + column) % 3 == 0 else train).append(pair)
    return train, test
