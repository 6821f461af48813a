-- Events that a group could not work on: tried again later, each time twice as late, and dead letters after so many tries.
-- KEYS: topic, the group's events to be tried again, dead letters. ARGV: group, error, most tries, first pause (ms),
-- longest pause (ms), most dead letters, then ids. Returns how many died.
local group, died = ARGV[1], 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 7, #ARGV do
    local id = ARGV[i]
    local pending = redis.call('XPENDING', KEYS[1], group, id, id, '1')[1]
    if pending and not redis.call('ZSCORE', KEYS[2], id) then
        local tries = pending[4]
        if tries < tonumber(ARGV[3]) then
            redis.call('ZADD', KEYS[2], now + math.min(ARGV[4] * 2 ^ (tries - 1), tonumber(ARGV[5])), id)
        else
            local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
            if entry then
                local event = ''
                for j = 1, #entry[2], 2 do
                    if entry[2][j] == 'e' then
                        event = entry[2][j + 1]
                    end
                end
                redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'e', event, 'g', group, 'x', ARGV[2], 'd', tries)
                died = died + 1
            end
            redis.call('XACK', KEYS[1], group, id)
        end
    end
end
return died
