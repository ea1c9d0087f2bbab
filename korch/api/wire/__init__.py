"""Pure: what stands in requests and answers of the API, from bytes and plain dicts to plain dicts; no clock, no I/O."""
