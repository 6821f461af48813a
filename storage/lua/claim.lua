-- Become the one writer of an attempt. KEYS: stream, claim. ARGV: writer, claim (ms). Returns 1, or 0 if refused.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
    local state = last[2][2]
    if state == '.sealed' or state == '.next' or state == 'turn.completed' or state == 'turn.failed'
        or state == 'turn.cancelled' then
        return 0
    end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[2]) == ARGV[1] then
    return 1
end
return 0
