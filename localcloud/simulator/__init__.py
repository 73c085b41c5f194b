"""Proves that the end state does not depend on how the events came (I12), on a whole control plane in a box.

The intake, the engine and the registry are the product's own; the external systems is simulated. A stream of
Stripe's objects and events, recorded or generated, is delivered shuffled, doubled, late and with losses,
while workers die in the middle of calls. What comes of it is held against Stripe's objects as they are in
the end, and against a second run of the same stream in which nothing goes wrong.

    stream    what happened at Stripe, in the order in which it happened
    schedule  when each event is delivered, if at all
    customers makes a stream of customers who change their minds
    box       the control plane in a box: deliver, work, die
    verdict   what differs, and why
"""
