"""The command `mdpd`: one module a command, each with `add_arguments(parser)` and `run(args)`.

Nothing here imports a framework at load; commands that need one import it when they run.
"""
