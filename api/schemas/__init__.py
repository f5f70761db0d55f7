"""Wire types: what the API takes and gives. Rows stay in the store, records in core."""
