"""The built-in zoos: ordinary plugins, found through the entry-point group like everyone else's.

No module here imports a framework when it is loaded.
"""
