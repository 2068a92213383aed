"""Attempts on the language layer: from ordinary values to the interpreter, and from there to the system."""

from __future__ import annotations

from _attempt import Attempt, attempt, walk

_BY_NAME = "next(c for c in {all} if c.__name__ == '_wrap_close').__init__.__globals__['sys'].modules['os']"
_GLOBALS = "['__builtins__']['__import__']('os')"

_CLASSES = (
    walk("base-and-subclasses", f"found = {_BY_NAME.format(all='().__class__.__base__.__subclasses__()')}"),
    walk("bases", f"found = {_BY_NAME.format(all='int.__bases__[0].__subclasses__()')}"),
    walk("mro-attribute", f"found = {_BY_NAME.format(all='str.__mro__[-1].__subclasses__()')}"),
    walk("mro-method", f"found = {_BY_NAME.format(all='bool.mro()[-1].__subclasses__()')}"),
    walk(
        "getattr-with-built-names",
        "kind = getattr(getattr((), '__cla' + 'ss__'), '__ba' + 'se__')\n"
        "wanted = next(c for c in getattr(kind, '__subclas' + 'ses__')() if c.__name__ == '_wrap_close')\n"
        "found = getattr(wanted.__init__, '__glob' + 'als__')['sys'].modules['os']",
    ),
    walk(
        "getattr-with-a-lying-name",
        """
class Name(str):
    def __eq__(self, other): return str(other) == "innocent" or str.__eq__(self, other)
    def __hash__(self): return hash("innocent")
    def __str__(self): return "innocent"
scope = getattr(harm, Name("__globals__"), None) or vars(type(harm))["__globals__"].__get__(harm)
found = scope["__builtins__"].__import__("os")
""",
    ),
    walk(
        "getattr-with-a-default",
        "scope = getattr(harm, '__globals__', None)\nfound = scope['__builtins__'].__dict__['__import__']('os')",
    ),
    walk(
        "getattribute-of-type",
        f"every = type.__getattribute__(object, '__subclasses__')()\nfound = {_BY_NAME.format(all='every')}",
    ),
    walk(
        "getattribute-of-object",
        "scope = object.__getattribute__(harm, '__globals__')\nfound = scope['__builtins__'].__import__('os')",
    ),
    walk(
        "getattribute-of-super",
        """
class Text(str):
    def read(self, value, name): return super().__class__.__base__.__getattribute__(value, name)
found = Text().read(harm, "__globals__")["__builtins__"].__import__("os")
""",
    ),
    walk(
        "descriptor-of-a-class",
        "scope = type(harm).__dict__['__globals__'].__get__(harm)\nfound = scope['__builtins__'].__import__('os')",
    ),
    walk(
        "attrgetter",
        "import operator\nevery = operator.attrgetter('__class__.__base__')(())\n"
        "every = operator.methodcaller('__subclasses__')(every)\n"
        f"found = {_BY_NAME.format(all='every')}",
    ),
    walk(
        "attrgetter-of-a-function",
        "import operator\nfound = operator.attrgetter('__globals__')(harm)['__builtins__'].__import__('os')",
    ),
    walk(
        "methodcaller",
        "import operator\nevery = operator.methodcaller('mro')(int)[-1]\n"
        "every = operator.methodcaller('__subclasses__')(every)\n"
        f"found = {_BY_NAME.format(all='every')}",
    ),
    walk(
        "class-pattern",
        """
match harm:
    case object(__globals__=scope):
        found = scope["__builtins__"].__import__("os")
""",
    ),
    walk(
        "class-pattern-with-positions",
        """
class Any(type):
    def __instancecheck__(cls, value): return True
class Taken(metaclass=Any):
    __match_args__ = ("__globals__",)
match harm:
    case Taken(scope):
        found = scope["__builtins__"].__import__("os")
""",
    ),
    walk(
        "metaclass-reads-for-us",
        """
class Meta(type):
    def every(cls): return type.__subclasses__(object)
found = next(c for c in Meta("X", (), {}).every() if c.__name__ == "_wrap_close")
found = found.__init__.__globals__["sys"].modules["os"]
""",
    ),
    walk(
        "reduce-of-an-object",
        "found = object().__reduce_ex__(2)[0].__globals__['__builtins__']['__import__']('os')",
    ),
    walk(
        "descriptors-of-type",
        """
class Own: pass
every = type.__dict__["__subclasses__"](type.__dict__["__base__"].__get__(Own))
found = next(c for c in every if c.__name__ == "_wrap_close").__init__.__globals__["sys"].modules["os"]
""",
    ),
)

_FRAMES = (
    walk(
        "traceback-frame",
        """
try:
    1 / 0
except ZeroDivisionError as error:
    frame = error.__traceback__.tb_frame
while frame.f_back:
    frame = frame.f_back
found = frame.f_globals["sys"].modules["os"]
""",
    ),
    walk("generator-frame", "found = (x for x in ()).gi_frame.f_builtins['__import__']('os')"),
    walk(
        "coroutine-frame",
        "async def run(): pass\nheld = run()\nfound = held.cr_frame.f_builtins['__import__']('os')\nheld.close()",
    ),
    walk(
        "asynchronous-generator-frame",
        "async def run(): yield\nfound = run().ag_frame.f_builtins['__import__']('os')",
    ),
    walk("getframe", "import sys\nfound = sys._getframe().f_back.f_globals['sys'].modules['os']"),
    walk(
        "current-frames", "import sys\nfound = list(sys._current_frames().values())[0].f_builtins['__import__']('os')"
    ),
    walk(
        "walk-stack",
        "import traceback\nframe = next(traceback.walk_stack(None))[0]\nfound = frame.f_builtins['__import__']('os')",
    ),
    walk(
        "walk-traceback",
        """
import traceback
try:
    1 / 0
except ZeroDivisionError as error:
    frame = next(traceback.walk_tb(error.__traceback__))[0]
found = getattr(frame, "f_builtins")["__import__"]("os")
""",
    ),
    walk("inspect", "import inspect\nfound = inspect.currentframe().f_builtins['__import__']('os')"),
    walk(
        "trace-function",
        """
import sys
seen = []
sys.settrace(lambda frame, event, value: seen.append(frame))
(lambda: 1)()
sys.settrace(None)
found = seen[0].f_builtins["__import__"]("os")
""",
    ),
    walk(
        "context-manager-frame",
        """
import contextlib
@contextlib.contextmanager
def held(): yield
found = held().gen.gi_frame.f_builtins["__import__"]("os")
""",
    ),
)

_FUNCTIONS = (
    walk("globals-of-a-function", "found = harm.__globals__['__builtins__'].__import__('os')"),
    walk("globals-of-a-library", f"import json\nfound = json.dumps.__globals__{_GLOBALS}"),
    walk("globals-of-a-method", f"import random\nfound = random.Random.choice.__globals__{_GLOBALS}"),
    walk("globals-of-exit", "found = exit.__class__.__init__.__globals__['sys'].modules['os']"),
    walk("builtins-of-a-function", "found = harm.__builtins__['__import__']('os')"),
    walk(
        "closure-of-a-function",
        """
import functools
held = functools.singledispatch(harm)
cells = [cell.cell_contents for cell in held.register.__closure__]
found = next(cell for cell in cells if hasattr(cell, "__globals__")).__globals__["__builtins__"]["__import__"]("os")
""",
    ),
    walk(
        "other-code-for-a-function",
        """
def read(value): return value.innocent
read.__code__ = read.__code__.replace(co_names=("__globals__",))
found = read(harm)["__builtins__"].__import__("os")
""",
    ),
    walk(
        "function-type",
        "import types\nfound = types.FunctionType(compile('().__class__.__base__', '', 'eval'), {})()\n"
        f"found = {_BY_NAME.format(all='found.__subclasses__()')}",
    ),
    walk(
        "code-type",
        """
import types
parts = "argcount posonlyargcount kwonlyargcount nlocals stacksize flags code consts names varnames filename name"
parts += " qualname firstlineno linetable exceptiontable freevars cellvars"
taken = compile("harm.innocent", "", "eval")
values = [getattr(taken, "co_" + part) for part in parts.split()]
values[8] = ("harm", "__globals__")
found = eval(types.CodeType(*values))["__builtins__"].__import__("os")
""",
    ),
    walk("self-of-a-builtin", "found = print.__self__.__import__('os')"),
    walk("self-of-a-builtin-by-getattr", "found = getattr(getattr(len, '__self__'), '__imp' + 'ort__')('os')"),
    walk("module-of-warnings", "import warnings\nfound = warnings.catch_warnings()._module.sys.modules['os']"),
    walk(
        "partial-of-import",
        "import functools\nfound = functools.partial(getattr(print, '__self__').__dict__['__import__'], 'os')()",
    ),
)

_FORMATS = tuple(
    attempt(
        f"format-{name}",
        "language",
        f"def function(): pass\n{code}\nif '__builtins__' in text or 'object at' in text or \"'object'\" in text:\n"
        "    print('REACHED')",
    )
    for name, code in {
        "of-a-text": "text = '{0.__globals__}'.format(function)",
        "of-a-variable": "form = '{0.__glo' + 'bals__}'\ntext = form.format(function)",
        "map": "text = '{f.__globals__}'.format_map({'f': function})",
        "unbound": "text = str.format('{0.__globals__}', function)",
        "mapped": "text = next(map(str.format, ['{0.__class__.__mro__}'], [1]))",
        "by-getattr": "text = getattr('{0.__globals__}', 'format')(function)",
        "nested": "width = 30\ntext = '{0:>{1.__globals__[width]}}'.format('object at', function)",
        "subclass": "class T(str): pass\ntext = T('{0.__globals__}').format(function)",
        "formatter": "import string\ntext = string.Formatter().format('{0.__globals__}', function)",
        "formatter-field": "import string\ntext = str(string.Formatter().get_field('0.__globals__', [function], {}))",
        "of-a-stolen-method": "steal = str.__dict__['format']\ntext = steal('{0.__globals__}', function)",
    }.items()
)

OBJECT_ATTEMPTS: tuple[Attempt, ...] = (*_CLASSES, *_FRAMES, *_FUNCTIONS, *_FORMATS)
