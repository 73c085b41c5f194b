"""Proves what billing decides on a whole control plane in a box, whatever happens to the events.

The intake, the engine and the registry are the product's own; the external systems is simulated. A stream of
Stripe's objects and events, recorded or generated, is delivered shuffled, doubled, late and with losses,
while workers die in the middle of calls. Two proofs use it.

*The end state does not depend on how the events came* (I12). What comes of a stream is held against Stripe's
objects as they are in the end, and against a second run of it in which nothing goes wrong.

    stream    what happened at Stripe, in the order in which it happened
    schedule  when each event is delivered, if at all
    customers makes a stream of customers who change their minds
    box       the control plane in a box: deliver, work, die
    verdict   what differs, and why

*Who pays is served, with its own rows, and nobody else.* There the order alone is not enough: two runs may be
wrong alike. So what customers did is told a second time, to somebody who knows nothing of the product.

    stories   customers who buy, fall behind, leave and return; told to Stripe and to the oracle
    stripe_objects  the objects that they tell Stripe
    oracle    who is to be served, by what customers did, and which pages show something else
    visitor   what a customer can see of a box and do in it
    proof     plays the stories in a box and asks the oracle
"""
