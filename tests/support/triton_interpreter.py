"""Makes Triton's interpreter quicker for the tests that run kernels in it.

At a kernel's launch it replaces what `triton.language` defines, and puts that back at the end. It does so again at each
call of a function in the kernel, a `tl.sum` too: two thirds of the time in which the sampling kernels run.
"""

from types import FunctionType, ModuleType
from typing import Any


def replace_the_language_once_a_launch() -> None:
    """A module that is replaced already is left as it is until the kernel has ended. All else is as before."""
    try:
        from triton import language
        from triton.runtime import interpreter

        replace, scope_type = interpreter._patch_lang, interpreter._LangPatchScope
    except (ImportError, AttributeError):  # no Triton, or one that goes about it in another way
        return
    restore = scope_type.restore
    replaced: set[ModuleType] = set()

    def replace_what_is_not_yet(function: FunctionType) -> Any:
        seen = {value for value in function.__globals__.values() if value is language or value is language.core}
        if seen and seen <= replaced:
            return scope_type()
        replaced.update(seen)
        return replace(function)

    def restore_all(scope: Any) -> None:
        restore(scope)
        replaced.clear()

    interpreter._patch_lang = replace_what_is_not_yet
    scope_type.restore = restore_all
