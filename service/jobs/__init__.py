"""Jobs: structures too large to wait for, accepted durably, computed in the background, kept for a while.

``records`` says what a job is, ``store`` keeps jobs (rows in ``database``, contents of results in ``results``), ``runner``
computes them, ``location`` decides where the store lies.
"""
