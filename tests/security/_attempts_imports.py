"""Attempts on the language layer: by importing, by evaluating text, and through what libraries do for their callers."""

from __future__ import annotations

from _attempt import HARM, Attempt, attempt, walk

_STATEMENTS = tuple(
    walk(f"import-{name}", code)
    for name, code in {
        "statement": "import os as found",
        "builtin-module": "import posix as found",
        "from": "from os import path\nfound = path.os",
        "submodule": "import os.path\nfound = os",
        "from-a-library": "from pathlib import os as found",
        "star": "from os import *\nfound = __import__('os')",
        "function": "found = __import__('os')",
        "function-with-a-lying-name": "class N(str):\n    def partition(self, s): return ('math', '', '')\n"
        "    def __eq__(self, o): return o == 'math' or str.__eq__(self, o)\n    __hash__ = str.__hash__\n"
        "found = __import__(N('os'))",
        "importlib": "import importlib\nfound = importlib.import_module('os')",
        "pkgutil": "import pkgutil\nfound = pkgutil.resolve_name('os')",
        "runpy": "import runpy\nfound = runpy.run_module('pathlib')['os']",
        "builtins": "import builtins\nfound = builtins.__import__('os')",
        "modules-of-sys": "import sys\nfound = sys.modules['os']",
        "real-sys-in-a-library": "import statistics\nfound = statistics.sys.modules['os']",
        "exec": "exec('import os as found')",
        "exec-with-own-builtins": "scope = {'__builtins__': {'__import__': __import__}}\nexec('import os', scope)\n"
        "found = scope['os']",
        "eval": "found = eval('__import__(\"os\")')",
        "compile": "found = eval(compile('__import__(\"os\")', 'f', 'eval'))",
        "of-a-tree": "import ast\nfound = eval(compile(ast.parse('__import__(\"os\")', mode='eval'), 'f', 'eval'))",
        "loader-of-a-module": "import time\nfound = time.__loader__.load_module('posix')",
        "spec-of-a-module": "import time\nfound = time.__spec__.loader.load_module('posix')",
        "loader-by-getattr": "import sys\nfound = getattr(sys, '__loader__').load_module('posix')",
        "builtins-in-globals": "found = globals()['__builtins__'].__dict__['__import__']('os')",
        "builtins-by-vars": "found = vars(globals()['__builtins__'])['__import__']('os')",
        "name-of-the-builtins": "found = __builtins__.__import__('os')",
        "own-file": "open('evil.py', 'w').write('import os')\nimport sys\nsys.path[:0] = ['.']\n"
        "import evil\nfound = evil.os",
        "own-file-by-an-allowed-name": "open('tabulate.py', 'w').write('import os')\nimport sys\n"
        "sys.path[:0] = ['.']\nimport tabulate\nfound = tabulate.os",
        "gc": "import gc\nscope = next(o for o in gc.get_referents(harm) if type(o) is dict)\n"
        "found = scope['__builtins__'].__import__('os')",
        "underscore-of-random": "import random\nfound = random._os",
        "underscore-of-tempfile": "import tempfile\nfound = tempfile._os",
        "module-in-glob": "import glob\nfound = glob.os",
        "module-in-pathlib": "import pathlib\nfound = pathlib.os",
        "module-in-logging": "import logging\nfound = logging.os",
        "module-in-logging-handler": "import logging\nfound = logging.FileHandler.__init__.__globals__['os']",
        "module-by-getattr": "import glob\nfound = getattr(glob, 'o' + 's')",
        "module-by-vars": "import glob\nfound = vars(glob)['os']",
        "module-in-numpy": "import numpy\nfound = numpy.__getattr__.__globals__['__builtins__']['__import__']('os')",
        "module-in-numpy-core": "import numpy\nfound = numpy.load.__globals__['os']",
        "module-in-sympy": "import sympy\nfound = sympy.sympify.__globals__['__builtins__']['__import__']('os')",
    }.items()
)

_EVALUATORS = tuple(
    walk(name, code)
    for name, code in {
        "sympify": "import sympy\nfound = sympy.sympify('__import__(\"os\")')",
        "sympify-a-walk": "import sympy\n"
        "every = sympy.sympify('().__class__.__base__.__subclasses__()', evaluate=True)\n"
        "found = next(c for c in every if getattr(c, '__name__', '') == '_wrap_close')\n"
        "found = found.__init__.__globals__['sys'].modules['os']",
        "sympy-S": "import sympy\nfound = sympy.S('__import__(\"os\")')",
        "parse-expr": "from sympy.parsing.sympy_parser import parse_expr\nfound = parse_expr('__import__(\"os\")')",
        "parse-expr-with-own-names": "from sympy.parsing.sympy_parser import parse_expr\n"
        "found = parse_expr('i(\"os\")', local_dict={'i': getattr(len, '__self__').__import__})",
        "parse-expr-with-own-globals": "from sympy.parsing.sympy_parser import parse_expr\nscope = {}\n"
        "exec('from sympy import *', scope)\nscope['__import__'] = __import__\n"
        "found = parse_expr('__import__(\"os\")', global_dict=scope)",
        "eval-expr": "from sympy.parsing.sympy_parser import eval_expr\n"
        "found = eval_expr('__import__(\"os\")', {}, {})",
        "lambdify": "import sympy\nx = sympy.Symbol('x')\nfound = sympy.lambdify(x, '__import__(\"os\")')(1)",
        "lambdify-of-a-printer": "import sympy\nx = sympy.Symbol('x')\n"
        "class E(sympy.Expr):\n    def _lambdacode(self, printer): return '__import__(\"os\")'\n"
        "    _pythoncode = _numpycode = _lambdacode\n"
        "found = sympy.lambdify(x, E())(1)",
        "lambdify-with-names": "import sympy\nx = sympy.Symbol('x')\n"
        "found = sympy.lambdify(x, sympy.Function('f')(x), [{'f': lambda x: __import__('os')}])(1)",
        "lambdify-argument-names": "import sympy\n"
        "x = sympy.Symbol('x'); x.name = 'x, y=__import__(\"os\")'\n"
        "found = sympy.lambdify('x=__import__(\"os\")', 'x')()",
        "sympy-import-module": "from sympy.external import import_module\nfound = import_module('os')",
        "sympy-namespace": "import sympy\n"
        "found = sympy.lambdify([], '1').__globals__['__builtins__']['__import__']('os')",
        "mpmath-identify": "import mpmath\nseen = []\n"
        "mpmath.identify(mpmath.mpf(3), {'seen.append(__import__(\"os\"))': 3})\nfound = __import__('os')",
        "forward-reference": "import typing\ndef f(x: '__import__(\"os\")'): pass\n"
        "found = typing.get_type_hints(f, localns={})['x']",
        "forward-reference-of-a-class": "import typing\nclass A:\n    x: '[__import__(\"os\")][0]'\n"
        "found = typing.get_type_hints(A)['x']",
        "timeit": "import timeit\nseen = []\n"
        "timeit.timeit('import os; seen.append(os)', globals={'seen': seen}, number=1)\nfound = seen[0]",
        "timeit-setup": "import timeit\nseen = []\n"
        "timeit.Timer('pass', 'import os; s.append(os)', globals={'s': seen}).timeit(1)\nfound = seen[0]",
        "dataclass-field": "import dataclasses\nmade = dataclasses.make_dataclass('D', [('a', int)])\n"
        "found = made.__init__.__globals__['__builtins__']['__import__']('os')",
        "reduce-of-a-copy": "import copy\nclass E:\n    def __reduce__(self): return (eval, ('__import__(\"os\")',))\n"
        "found = copy.copy(E())",
        "numpy-runstring": "from numpy.testing import runstring\nscope = {}\nrunstring('import os', scope)\n"
        "found = scope['os']",
        "code-module": "import code\nheld = code.InteractiveInterpreter()\nheld.runsource('import os')\n"
        "found = held.locals['os']",
    }.items()
)

# Past the language layer by way of data: that it lets them through is no fault, as the jail is there.
_DATA = (
    attempt(
        "numpy-pickle",
        "seccomp",
        """
import base64, io, numpy
pickled = b"cposix\\nsystem\\n(S'exit 0'\\ntR."
header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
header += b" " * (117 - len(header)) + b"\\n"
data = b"\\x93NUMPY\\x01\\x00" + len(header).to_bytes(2, "little") + header + pickled
if numpy.load(io.BytesIO(data), allow_pickle=True) == 0:
    print("ESCAPED: ran a program")
""",
    ),
    attempt(
        "pickle",
        "language",
        HARM
        + """
import pickle
if isinstance(pickle.loads(b"cposix\\ngetpid\\n(tR."), int):
    print("REACHED")
if pickle.loads(b"cposix\\nsystem\\n(S'exit 0'\\ntR.") == 0:
    print("ESCAPED: ran a program")
""",
    ),
    attempt(
        "numpy-memory",
        "host",
        """
import numpy, re
small = numpy.zeros(1, dtype=numpy.uint8)
wild = numpy.lib.stride_tricks.as_strided(small, (1 << 22,), (1,))
if re.search(rb"elpo-secret=[0-9a-f]{32}", wild.tobytes()):
    print("ESCAPED: read the host's memory")
""",
    ),
)

# What a program would import for it, and then use. Markers are printed by what comes after the import.
_MODULES = tuple(
    attempt(f"use-{name}", "language", code)
    for name, code in {
        "subprocess": "import subprocess\nprint('REACHED')\n"
        "if subprocess.run(['/bin/true']).returncode == 0: print('ESCAPED')",
        "socket": "import socket\nprint('REACHED')\nsocket.create_connection(('127.0.0.1', @PORT@))\nprint('ESCAPED')",
        "urllib": "import urllib.request\nprint('REACHED')\n"
        "urllib.request.urlopen('http://127.0.0.1:@PORT@', timeout=1)\nprint('ESCAPED')",
        "http": "import http.client\nprint('REACHED')\n"
        "http.client.HTTPConnection('127.0.0.1', @PORT@).connect()\nprint('ESCAPED')",
        "asyncio": "import asyncio\nprint('REACHED')\n"
        "asyncio.run(asyncio.open_connection('127.0.0.1', @PORT@))\nprint('ESCAPED')",
        "multiprocessing": "import multiprocessing\nprint('REACHED')\n"
        "p = multiprocessing.get_context('fork').Process(target=print)\np.start()\np.join()\nprint('ESCAPED')",
        "shared-memory": "from multiprocessing import shared_memory\nprint('REACHED')\n"
        "shared_memory.SharedMemory(create=True, size=64).unlink()\nprint('ESCAPED')",
        "executor": "from concurrent.futures import ProcessPoolExecutor\nprint('REACHED')\n"
        "ProcessPoolExecutor(1).submit(print).result()\nprint('ESCAPED')",
        "threading": "import threading\nprint('REACHED')\nthreading.Thread(target=print).start()\nprint('ESCAPED')",
        "raw-thread": "import _thread\nprint('REACHED')\n_thread.start_new_thread(print, ())\nprint('ESCAPED')",
        "ctypes": "import ctypes\nprint('REACHED')\nif ctypes.CDLL(None).system(b'exit 0') == 0: print('ESCAPED')",
        "shutil": "import shutil\nprint('REACHED')\nshutil.copy('@CANARY@', 'copy')\nprint('ESCAPED')",
        "sqlite": "import sqlite3\nprint('REACHED')\n"
        "sqlite3.connect('@CANARY@.db').execute('create table t (x)')\nprint('ESCAPED')",
        "signal": "import signal\nprint('REACHED')\nsignal.pidfd_send_signal(0, 0)\nprint('ESCAPED')",
        "fcntl": "import fcntl\nprint('REACHED')\nfcntl.ioctl(0, 0x5412, b'x')\nprint('ESCAPED')",
        "resource": "import resource\nprint('REACHED')\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\nprint('ESCAPED')",
        "pty": "import pty\nprint('REACHED')\npty.fork()\nprint('ESCAPED')",
    }.items()
)

IMPORT_ATTEMPTS: tuple[Attempt, ...] = (*_STATEMENTS, *_EVALUATORS, *_DATA, *_MODULES)
