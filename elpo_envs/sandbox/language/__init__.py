"""The language layer: Python with the doors to the operating system closed, and messages that say so.

It is defence in depth over a confined process and not a boundary of its own: memory can be reached through
numpy, a class pattern reads whatever attributes its class names while the program runs, and no list of forbidden
names is complete. Ordinary code compiles to the byte code it always had.
"""

from __future__ import annotations

from .language import Language
from .policy import DEFAULT_IMPORTS, LanguagePolicy
from .transform import RestrictedError

__all__ = ["DEFAULT_IMPORTS", "Language", "LanguagePolicy", "RestrictedError"]
