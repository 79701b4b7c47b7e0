"""What ends a benchmark, or one run of it."""


class BenchError(Exception):
    """Something that the benchmark needs is not there; the message names it and the mend."""


class RunError(Exception):
    """One run gave no figure: a server that did not start, a generator that did not end."""
