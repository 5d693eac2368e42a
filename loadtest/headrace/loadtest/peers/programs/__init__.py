"""The peers themselves, as a competent user of each library would write them.

Each is run by the interpreter of an environment of its own, so it imports nothing of Headrace.
"""
