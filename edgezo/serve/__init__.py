"""The OpenAI API of chats and completions over HTTP, around a `Speaker`.

It knows no command, and reads no file: a request names a model, never a path.
"""
