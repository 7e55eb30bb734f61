"""Split conformal prediction: verdicts whose error rates are promised.

    scores       how odd a record's signals are
    thresholds   from which score on records are refused, and below which they are accepted
    calibration  the scores that thresholds are taken from, in sets that never change
    labelling    labels as they come in, beside the signals stored with the outcome
    build        sets made of labels
    promotion    sets coming into force, and the way back
    density_ratio  how much more often records come now than when they were labelled
    weighted     thresholds where that is known; `set_thresholds` gives those of a set, with it or without
    gate         the decision on a record, and what says how it came about
    martingale   whether scores still come from one place, at any time
    drift        whether recent scores come from where a set's came from, at one look
    coverage     how often the gate was wrong, beside how often it may be
    store        what keeps labels, sets and promotions; `shelf` holds them in memory within their bounds, and beside it are
                 the stores of memory, Redis and PostgreSQL, and what guards those of servers

Pure, but for the rooms that say otherwise.
"""
