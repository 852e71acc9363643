"""What a file of records says as a whole: figures, a table, a page to look at. From records alone; prints nothing."""
