"""Delivery: from the journal to a destination, and what follows from each answer.  Theory of operation.

Each destination has one *shipper*: a thread that reads streams and hands batches to the destination's exporter.  Its
*fleet* says which streams: this process's own, those of dead processes, others on request.  A *shipment* is one stream
on its way to one destination; it holds the ship lock of that pair, so two processes never ship the same stream to the
same place.  Shipments are served in turn, one batch each, and the process's own between any two others, so it never
waits behind a backlog.

An exporter delivers a batch or raises.  Four things can follow (``docs/delivery.md`` has the table):

- *delivered*: the cursor moves.
- *retry*: back off (exponential, full jitter, the receiver's wish up to a cap) for as long as it takes.
- *blocked*: keep everything, back off to minutes, say loudly what to repair.
- *refused*: split the batch until each refused record stands alone.  Only if the destination accepted another record
  meanwhile are the refused ones dead-lettered; a destination that refuses everything is blocked, because a typing error
  in its address looks just like that.

What is *blocked* or refused whole may be the fault of one stream, so that one waits by itself while others go on; when
two in a row are, it is the destination that is waited for.  That another stream is accepted, or a newer record, is the
evidence by which refused records are dead-lettered later.

The cursor moves only over records that are settled: acknowledged by the destination, or synced to the dead letters.
"""
