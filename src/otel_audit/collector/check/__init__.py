"""Trying a chain of Collectors that runs: marked records in, and a look at where each arrived.

``marks`` says what is sent and judges what arrived, ``sending`` sends, ``sinks`` look at the ends, ``check`` does all.
"""
