-- Renew leases, also ones that are not there any more; the number of all that count.
-- KEYS: a sorted set of leases. ARGV: lease (us), then the ids.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000) + 1000)
return redis.call('ZCARD', KEYS[1])
