"""Reports as text: tables, the evaluation report, and blocks of documents."""
