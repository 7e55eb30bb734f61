"""Split conformal prediction: verdicts whose error rates are promised.

    scores       how odd a record's signals are
    thresholds   from which score on records are refused, and below which they are accepted
    calibration  the scores that thresholds are taken from, in sets that never change
    gate         the decision on a record, and what says how it came about

Pure, but for the rooms that say otherwise.
"""
