-- Leave the epoch of an owner who reads the attempt: what earlier ones still want to say is refused.
-- KEYS: stream, claim, owner. ARGV: epoch, ttl (s).
if tonumber(redis.call('GET', KEYS[3]) or '0') <= tonumber(ARGV[1]) then
    redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[2])
end
return 0
