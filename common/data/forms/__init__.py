"""Forms: how a record of a source becomes a text that CPT reads, or a conversation; one module for each."""
