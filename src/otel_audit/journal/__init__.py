"""The journal: the only place where durability lives.  Theory of operation.

A journal is a directory of *streams*.  Each process that emits owns one, made on first use, and is its only writer; it
holds the stream's lock (``flock``) until it dies.  A stream is a hash chain of records in *segments*: append-only
files of one JSON line per record, named by the first sequence number.  Destinations read streams at their own pace and
keep a *cursor* each.  What every required destination has, and what is older than the retention, is removed, and the
*ledger* says so.

Invariants
    1. A line is written by one ``write(2)`` under the stream's lock; the state (sequence, previous hash, offset)
       advances after the write, never before.
    2. Records are numbered from 1 without gaps; each carries the hash of the one before.  Nothing of a record stands
       outside its hash.
    3. Only the writer changes a segment, by appending, and by cutting off its own unfinished line.  Everybody else only
       reads; a dead stream is never changed, only removed.
    4. A segment is synced before the next one begins, and a segment ends where the next one begins.
    5. A cursor moves after the destination's acknowledgement (or after the dead letter is synced), so a crash
       repeats records and never skips them; receivers know a record by its id.
    6. Removal: cursors synced, then the ledger line, then the unlink.
    7. Nothing that has to be written for a removal needs room: cursors are written in place, the ledger has room
       reserved behind its end.  So a full disk is relieved of what is delivered.

What each crash point leaves behind
    ================================================  ===============================================================
    killed …                                          found by the next reader
    ================================================  ===============================================================
    while a stream is made                            a hidden ``.new-…`` directory without records, or a stream without
                                                      any; both are removed later
    before ``write(2)``                               nothing of that record; its ``emit`` had not returned
    within ``write(2)``                               a torn tail: reported, not delivered; ``emit`` had not returned
    after ``write(2)``, before ``emit`` returned      the record: delivered
    while a failed sync is mended                     the old segment, or it and the new one, which repeats its last
                                                      records: each is read once; a hidden ``.rescue`` file is litter
    after a batch was accepted, before the cursor     the batch again: receivers drop it by ``audit.record.id``
    while a cursor is written                         the old cursor, in its own slot, or the new one
    between ledger line and unlink                    the segment and its line: removed and named again
    while a stream is removed                         a hidden ``.gone-…`` directory, removed later
    power loss                                        a torn tail or a zeroed page: the whole lines on both sides are
                                                      delivered, the hole is counted; what ``durability="disk"`` had
                                                      acknowledged lies before it
    ================================================  ===============================================================

Files: ``line`` (the format), ``place`` (where a record says it belongs), ``segment``, ``reader`` and ``damage``
(reading, and what is said of damage), ``stream`` (the writer), ``state`` (what it knows, and how that is made to agree
with the files), ``commit`` (group commit), ``creation`` (making a stream), ``control`` (our own records), ``journal``
(this process's stream), ``room`` (how much it may take), ``streams`` (everybody's), ``cursor``, ``ledger`` and
``removed`` (removal, and what is known of it later), ``metadata``, ``layout`` (paths, modes, file systems), ``locks``,
``threads``, ``courtesy`` (giving way to other threads); ``files`` makes the system calls.
"""
