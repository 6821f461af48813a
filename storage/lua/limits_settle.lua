-- Give back the lease of a request's turn, and correct the tokens that were taken for it by what they came to.
-- KEYS: the buckets of tokens and turns. ARGV: id of the request, us that tokens may be owed, then kind, limit and
-- correction of each.
local owed = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local minute = 60000000
for i, key in ipairs(KEYS) do
    local kind, limit, by = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
    if kind == 'turns' then
        redis.call('ZREM', key, ARGV[1])
    elseif by ~= 0 then
        local tat = tonumber(redis.call('GET', key) or '0')
        if by > 0 then
            tat = math.max(tat, now)
        end
        tat = math.min(tat + by * minute / limit, now + minute + owed)
        if tat > now then
            redis.call('SET', key, string.format('%.17g', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
        else
            redis.call('DEL', key)
        end
    end
end
return 0
