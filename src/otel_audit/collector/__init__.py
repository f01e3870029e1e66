"""The Collector side: a linter that knows how a Collector loses audit records, configurations to start from, a check.

Read in this order: ``parsing`` (YAML with its lines), ``expansion`` (variables), ``configuration`` (components and
pipelines), ``flow`` (which pipelines carry audit records), ``rules/`` (what is wrong), ``lint`` (all of it together).
"""
