"""Attribute names, by what it takes to read them: nothing, a check when the program runs, or not at all."""

from __future__ import annotations

_DENIED = """
    __subclasses__ __bases__ __base__ __mro__ mro __globals__ __code__ __closure__ __builtins__ __import__ __loader__
    __spec__ __reduce__ __reduce_ex__ __array_namespace__ func_globals func_code func_closure
    tb_frame tb_next f_back f_builtins f_code f_generator f_globals f_locals f_trace
    gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame ag_code ag_await
    co_argcount co_branches co_cellvars co_code co_consts co_exceptiontable co_filename co_firstlineno co_flags
    co_freevars co_kwonlyargcount co_lines co_linetable co_lnotab co_name co_names co_nlocals co_positions
    co_posonlyargcount co_qualname co_stacksize co_varnames
"""
DENIED: frozenset[str] = frozenset(_DENIED.split())
"""Names that lead from a value to the interpreter: to all classes, to frames, to code, to module namespaces."""

FORMATS: frozenset[str] = frozenset({"format", "format_map"})
"""Methods of `str` that read attributes named in a text."""

_MODULES = """
    asyncio atexit builtins codeop concurrent copyreg ctypes faulthandler gc importlib inspect linecache marshal mmap
    multiprocessing nt ntpath os pdb pickle pkgutil posix posixpath pty runpy shutil signal socket ssl subprocess sys
    sysconfig threading webbrowser zipimport
"""

GUARDED: frozenset[str] = FORMATS | {
    "__dict__",
    "__getattribute__",
    "__self__",
    "_flavour",
    "_module",
    "bltns",
    "modules",
    "parser",
    *_MODULES.split(),
    *(f"_{name}" for name in _MODULES.split()),
}
"""Names under which libraries keep modules, and those whose value depends on whose attribute it is."""

_HARMLESS = """
    __class__ __doc__ __name__ __qualname__ __module__ __annotations__ __annotate__ __type_params__ __weakref__
    __slots__ __defaults__ __kwdefaults__ __func__ __wrapped__ __objclass__ __text_signature__ __signature__
    __version__ __all__ __new__ __init__ __del__ __repr__ __str__ __bytes__ __format__ __hash__ __bool__ __dir__
    __sizeof__ __call__ __getattr__ __setattr__ __delattr__ __get__ __set__ __delete__ __set_name__
    __init_subclass__ __class_getitem__ __instancecheck__ __subclasscheck__ __subclasshook__ __prepare__
    __abstractmethods__ __isabstractmethod__ __match_args__ __len__ __length_hint__ __getitem__ __setitem__
    __delitem__ __missing__ __iter__ __next__ __reversed__ __contains__ __lt__ __le__ __eq__ __ne__ __gt__ __ge__
    __add__ __sub__ __mul__ __matmul__ __truediv__ __floordiv__ __mod__ __divmod__ __pow__ __lshift__ __rshift__
    __and__ __xor__ __or__ __radd__ __rsub__ __rmul__ __rmatmul__ __rtruediv__ __rfloordiv__ __rmod__ __rdivmod__
    __rpow__ __rlshift__ __rrshift__ __rand__ __rxor__ __ror__ __iadd__ __isub__ __imul__ __imatmul__ __itruediv__
    __ifloordiv__ __imod__ __ipow__ __ilshift__ __irshift__ __iand__ __ixor__ __ior__ __neg__ __pos__ __abs__
    __invert__ __complex__ __int__ __float__ __index__ __round__ __trunc__ __floor__ __ceil__ __enter__ __exit__
    __await__ __aiter__ __anext__ __aenter__ __aexit__ __copy__ __deepcopy__ __replace__ __getstate__ __setstate__
    __getnewargs__ __getnewargs_ex__ __cause__ __context__ __suppress_context__ __traceback__ __notes__
    __post_init__ __dataclass_fields__ __dataclass_params__ __members__ __origin__ __args__ __parameters__ __bound__
    __constraints__ __value__ __total__ __required_keys__ __optional_keys__ __metadata__ __supertype__
    __orig_class__ __orig_bases__ __thisclass__ __self_class__ __fspath__ __buffer__ __array__ __array_ufunc__
    __array_function__ __array_priority__
"""
HARMLESS: frozenset[str] = frozenset(_HARMLESS.split())
"""Double-underscore names that are read like any other."""


def denial(name: str) -> str:
    """The message for an attribute that may not be used."""
    return f"access to {name!r} is not allowed"


def is_dunder(name: str) -> bool:
    """Whether `name` is of the form `__x__`."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def needs_guard(name: str) -> bool:
    """Whether a load of the attribute `name` is checked when the program runs."""
    return name in GUARDED or (is_dunder(name) and name not in HARMLESS)
