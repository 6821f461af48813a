-- Begin anew in a Redis that has lost what it had. KEYS: state, rows that are in but may not be confirmed. ARGV: epoch,
-- marker. Returns 0; -1: a later relay works.
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') > tonumber(ARGV[1]) then
    return -1
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'marker', ARGV[2], 'position', '0')
return 0
