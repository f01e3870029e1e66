"""The doctor: looks at everything that a configuration depends on, and says what to do.

What is seen (``facts``) and what that means (``rules``) are apart: ``looking`` and ``reaching`` look, at this machine
and over the network, and have no opinion; ``rules`` is pure.  ``command`` puts them together.
"""
