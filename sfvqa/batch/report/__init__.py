"""What a file of records says as a whole: figures, a table, a page. Made from records alone; prints nothing."""
