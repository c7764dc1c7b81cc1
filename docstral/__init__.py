"""Ask Mistral's documentation: streamed answers, each claim cited, each answer with a receipt."""

__version__ = "0.1.0"

# What most programs need. Loaded when it is first used, so that `import docstral` is quick.
_PUBLIC = {
    "Answer": "library",
    "DocStral": "library",
    "DocStralError": "errors",
    "Question": "chat",
    "Settings": "settings",
    "ask": "library",
    "ask_async": "library",
    "search": "library",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    from importlib import import_module

    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted([*globals(), *_PUBLIC])
