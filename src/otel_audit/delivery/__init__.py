"""Delivery: from the journal to a destination, and what follows from each answer.  Theory of operation.

Each destination has one *shipper*: a thread that reads streams and hands batches to the destination's exporter.  A
*shipment* is one stream on its way to one destination; it holds the ship lock of that pair, so two processes never
ship the same stream to the same place.  A shipper serves its shipments in turn, one batch each, so a living stream
does not starve behind the backlog of a dead one.

An exporter delivers a batch or raises.  Four things can follow (``docs/delivery.md`` has the table):

- *delivered*: the cursor moves.
- *retry*: back off (exponential, full jitter, the receiver's wish up to a cap) for as long as it takes.
- *blocked*: keep everything, back off to minutes, say loudly what to repair.
- *refused*: split the batch until each refused record stands alone.  Only if the destination accepted another record
  meanwhile are the refused ones dead-lettered; a destination that refuses everything is blocked, because a typing error
  in its address looks just like that.

The cursor moves only over records that are settled: acknowledged by the destination, or synced to the dead letters.
"""
