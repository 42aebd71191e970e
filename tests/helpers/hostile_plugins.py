"""Sources of plugins that end, crash, hang or disturb the process that loads them."""

from __future__ import annotations

from packages import GOOD_PLUGIN


def good(name: str) -> str:
    """What a plugin that registers ``<name>/one`` has in its module."""
    return GOOD_PLUGIN.format(zoo=name, module=f"acme_{name}")


# Loads that never come back.
HOOK = "from mdpd_plugins.registry import hookimpl\n@hookimpl\ndef register_backbones(register):\n    {}\n"
ENDING = {
    "exit": "import os\nos._exit(0)",
    "crash": "import ctypes\nctypes.string_at(0)",
    "kill": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "alarm": "import signal, time\nsignal.alarm(1)\ntime.sleep(60)",
    "in_hook": HOOK.format("import os; os._exit(0)"),
}


# Name -> (source, what doctor says).
RAISING = {
    "recursion": ("def f():\n    f()\nf()", "RecursionError"),
    "memory": ("x = bytes(2**60)", "MemoryError"),
    "interrupt": ("raise KeyboardInterrupt", "raised KeyboardInterrupt, and nobody pressed Ctrl-C"),
    "base": ("class Mine(BaseException):\n    pass\nraise Mine", "raised Mine, which is no ordinary exception"),
    "stop": ("raise StopIteration", "StopIteration"),
    "unsaid": ("class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute", "Mute"),
    "surrogate": ("raise ValueError('\\udc80 \\x1b[2J')", r"ValueError: \udc80 \x1b[2J"),
    "asking": ("input('may I? ')", "EOFError"),
    "recursion_in_hook": (HOOK.format("def f(): f()\n    f()"), "RecursionError"),
    "interrupt_in_hook": (HOOK.format("raise KeyboardInterrupt"), "nobody pressed Ctrl-C"),
}


# What changes the process; a good plugin follows.
CHANGING = {
    "closing": "import sys\nsys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
    "closing_originals": "import sys\nsys.__stdout__.close(); sys.__stderr__.close(); sys.__stdin__.close()",
    "closing_descriptors": "import os\nos.closerange(0, 3)",
    "replacing": "import sys, io\nsys.stdout = sys.stderr = sys.stdin = io.StringIO()",
    "deleting": "import sys\ndel sys.stdout, sys.stderr, sys.stdin",
    "none": "import sys\nsys.stdout = sys.stderr = sys.stdin = None",
    "printing": "import os, sys\nprint('noise'); os.write(1, b'noise'); sys.__stdout__.write('noise')",
    "folder": "import os\nos.chdir('/')",
    "handlers": "import signal\nfor s in (signal.SIGINT, signal.SIGTERM):\n    signal.signal(s, signal.SIG_IGN)",
    "alarm": "import signal as s\ns.signal(s.SIGALRM, lambda *_: 1 / 0)\ns.setitimer(s.ITIMER_REAL, 0.3, 0.3)",
    "warnings": "import warnings\nwarnings.simplefilter('error')",
    "depth": "import sys\nsys.setrecursionlimit(60)",
    "forking": "import os\nos.fork()",
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
}
