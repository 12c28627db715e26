"""The runtime for apps: opens runs, and offers steps, answers and events to the threads of an app.

It connects the packages below and computes nothing itself. It must not know the command line, which
uses it as any app does.
"""
