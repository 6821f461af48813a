-- Put a batch of rows into the streams of their events, each row once. KEYS: state, rows that are in but may not be
-- confirmed, then streams. ARGV: epoch, marker, position that Redis must have, number of rows confirmed by now and these,
-- then for each stream its greatest length and its life (s, 0: for good), then the rows: a name, the id, the number of
-- entries, and for each entry its stream's place and the event.
-- Returns the new position; -1: a later relay works; -2: Redis has lost what it had.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'marker', 'position')
if tonumber(state[1] or '0') > tonumber(ARGV[1]) then
    return -1
end
if state[2] ~= ARGV[2] or tonumber(state[3]) < tonumber(ARGV[3]) then
    return -2
end
local at = 5
for _ = 1, tonumber(ARGV[4]) do
    redis.call('SREM', KEYS[2], ARGV[at])
    at = at + 1
end
local streams = at - 1
at = at + 2 * (#KEYS - 2)
while ARGV[at] do
    local fresh, row, entries = redis.call('SADD', KEYS[2], ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 3
    for _ = 1, entries do
        if fresh == 1 then
            local place = tonumber(ARGV[at])
            redis.call('XADD', KEYS[2 + place], 'MAXLEN', '~', ARGV[streams + 2 * place - 1], '*', 'e', ARGV[at + 1], 'r', row)
        end
        at = at + 2
    end
end
for place = 1, #KEYS - 2 do
    local life = ARGV[streams + 2 * place]
    if life ~= '0' then
        redis.call('EXPIRE', KEYS[2 + place], life)
    end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'position', 1)
