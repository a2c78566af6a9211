"""The words of the plain pages, which need no script: the language of a request, and the row of languages to choose from."""

from annotate.api.words import say

__all__ = ["say"]
