-- Hand events of a topic to a consumer of a group: those to be tried again, those whose lease has run out, new ones.
-- KEYS: topic, the group's events to be tried again (by the time, ms). ARGV: group, consumer, most, lease (ms).
-- Returns a list of id, delivery and fields.
local group, consumer, most, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}

local function claim(id, delivered)
    local entry = redis.call('XCLAIM', KEYS[1], group, consumer, '0', id)[1]
    redis.call('ZREM', KEYS[2], id)
    if entry then
        found[#found + 1] = { id, delivered + 1, entry[2] }
    else  -- the topic has it no more
        redis.call('XACK', KEYS[1], group, id)
    end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', '0', most)) do
    local pending = redis.call('XPENDING', KEYS[1], group, id, id, '1')[1]
    if pending then
        claim(id, pending[4])
    else
        redis.call('ZREM', KEYS[2], id)
    end
end
local start = '-'
while #found < most do
    local late = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, start, '+', '100')
    for _, pending in ipairs(late) do
        if #found < most and not redis.call('ZSCORE', KEYS[2], pending[1]) then
            claim(pending[1], pending[4])
        end
    end
    if #late < 100 then
        break
    end
    start = '(' .. late[100][1]
end
while #found < most do
    local fresh = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', most - #found, 'STREAMS', KEYS[1], '>')
    local entries = fresh and fresh[1] and fresh[1][2] or {}
    if #entries == 0 then
        break
    end
    for _, entry in ipairs(entries) do
        local fields, of = entry[2], nil
        for i = 1, #fields, 2 do
            if fields[i] == 'g' then
                of = fields[i + 1]
            end
        end
        redis.call('ZREM', KEYS[2], entry[1])
        if of and of ~= group then  -- a dead letter of another group
            redis.call('XACK', KEYS[1], group, entry[1])
        else
            found[#found + 1] = { entry[1], 1, fields }
        end
    end
end
return found
