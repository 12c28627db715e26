"""A bundle and adapters of it, ready to answer one text after another: for `chat` and `serve`.

It knows neither commands nor HTTP.
"""
