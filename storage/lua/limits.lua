-- Take of all buckets of a request at once, or of none. Requests and tokens: the generic cell rate algorithm (as
-- domain/gcra.py), a bucket kept as the time at which it is full again; turns: leases, a sorted set by their ends.
-- KEYS: the buckets. ARGV: id of the request, lease (us), us that tokens may be owed, then kind, limit and cost of each.
-- Returns the place of the bucket that refuses for the longest (0: none), then for each what remains and us until it is
-- full (of one that refuses: until it would not).
local id, lease, owed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local minute = 60000000
local refused, longest = 0, -1
local before, after, waits = {}, {}, {}
for i, key in ipairs(KEYS) do
    local kind, limit, cost = ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2]), tonumber(ARGV[3 * i + 3])
    local admitted
    if kind == 'turns' then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
        before[i] = redis.call('ZCARD', key)
        after[i], waits[i] = before[i] + 1, 1000000
        admitted = before[i] < limit
    else
        local ahead = now + minute + (kind == 'tokens' and owed or 0)
        local tat = math.max(now, math.min(tonumber(redis.call('GET', key) or '0'), ahead))
        waits[i] = tat + math.min(cost, limit) * minute / limit - (now + minute)
        before[i], after[i] = tat, math.min(tat + cost * minute / limit, now + minute + owed)
        admitted = waits[i] <= 1
    end
    if not admitted and waits[i] > longest then
        refused, longest = i, waits[i]
    end
    waits[i] = not admitted and waits[i] or nil
end
local answer = { refused }
for i, key in ipairs(KEYS) do
    local kind, limit = ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
    local value = refused == 0 and after[i] or before[i]
    if kind == 'turns' then
        answer[2 * i], answer[2 * i + 1] = math.max(0, limit - value), waits[i] or 0
        if refused == 0 then
            redis.call('ZADD', key, now + lease, id)
            redis.call('PEXPIRE', key, math.ceil(lease / 1000) + 1000)
        end
    else
        local left = math.floor((now + minute - value) * limit / minute + 0.000001)
        answer[2 * i], answer[2 * i + 1] = math.max(0, left), math.ceil(waits[i] or (value - now))
        if refused == 0 then
            redis.call('SET', key, string.format('%.17g', value), 'PX', math.ceil((value - now) / 1000) + 1)
        end
    end
end
return answer
