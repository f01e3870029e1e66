"""What can be shown of records that are stored, from their bytes alone.  Pure: no files, no network."""
