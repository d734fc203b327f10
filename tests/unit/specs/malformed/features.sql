SELECT 1 AS account_id, @partition AS snapshot_date
