"""Files, memory, sizes, locks and strict JSON: what edgezo needs of the operating system.

The package owns durable files, safetensors files, memory figures and the memory guard. It must not
know models, runs or bundles; of the runtime it imports `errors` alone.
"""
