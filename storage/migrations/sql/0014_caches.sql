-- Which cache was flushed is told as what changed of access is: every replica hears it.
ALTER TABLE brain.access_changes DROP CONSTRAINT access_changes_kind_check;
ALTER TABLE brain.access_changes ADD CONSTRAINT access_changes_kind_check
    CHECK (kind IN ('tenant', 'key', 'user', 'role', 'token', 'signing', 'cache'));
