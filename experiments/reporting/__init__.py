"""Numbers as text: tables, reports, and the blocks of documents that they fill."""
