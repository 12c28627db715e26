"""Settings: options made from dataclasses, configuration files, and the help of both.

Knows no verb; the fields of the dataclasses belong to the verbs and the runtime.
"""
