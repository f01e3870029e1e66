"""What otel-audit costs, side by side with what people use instead.  Run it: ``python -m benchmarks``.

One file for each question.  A question has *cases*; each case runs in a process of its own, and the rounds of all cases
take turns, so that whatever the machine does besides hits them alike.  What is reported are medians over the rounds and
ratios to a named peer; see ``docs/performance.md`` for how to read them.
"""
