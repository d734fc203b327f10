"""Loading files into tables: CSV or Parquet of any size, the partitions they hold replaced in one statement."""
