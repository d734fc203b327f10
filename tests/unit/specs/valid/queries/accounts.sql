SELECT account_id, snapshot_date, age
FROM features.card_accounts
WHERE snapshot_date = @partition;
